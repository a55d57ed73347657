"""Features of one side as the sum of one vector each."""

from collections.abc import Mapping

import tensorflow as tf
import tf_keras

from models.features.dense_features import is_index
from models.features.spec import FeatureConfig


class FeatureEncoder(tf_keras.layers.Layer):
    """Sums an embedding for each index feature and a direction for each number.

    Many values of one feature are averaged. A missing feature adds nothing, and in training each
    feature is hidden for a row with the chance `dropout`, so that the tower also learns to answer
    without it. The sum over features is that of a factorisation machine's first-order part
    in vector form (LightFM: Kula 2015, eq. 1).

    References:
        Kula, M. Metadata Embeddings for User and Item Cold-start Recommendations. 2015.
    """

    def __init__(
        self,
        features: Mapping[str, FeatureConfig],
        sizes: Mapping[str, int],
        dimension: int,
        dropout: float,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self._scale = scale
        self._features = dict(features)
        self._dropout = dropout
        self._tables = {
            name: tf_keras.layers.Embedding(sizes[name], dimension, name=f"{name}_embedding")
            for name, feature in features.items()
            if is_index(feature)
        }
        self._directions = {
            name: tf_keras.layers.Dense(dimension, name=f"{name}_direction")
            for name, feature in features.items()
            if not is_index(feature)
        }
        for table in self._tables.values():
            table.build(None)

    @property
    def has_features(self) -> bool:
        """Whether there is anything to encode."""
        return bool(self._features)

    def call(
        self, inputs: Mapping[str, tf.Tensor], seed: tf.Tensor | None = None
    ) -> tf.Tensor | float:
        """Encodes `[batch, n]` features to `[batch, dimension]`.

        Args:
            inputs: As `models.features.dense_features` returns them; an index feature may also come
                as `shares` makes it, which is faster if the same rows are looked up repeatedly.
            seed: `[2]` int32, given in training only: of the features that are hidden.

        Returns:
            `[batch, dimension]` float32, or 0.0 where there is no feature.
        """
        total: tf.Tensor | float = 0.0
        for position, (name, feature) in enumerate(self._features.items()):
            if is_index(feature):
                vector = self._mean_embedding(name, inputs[name])
            else:
                present = tf.math.is_finite(inputs[name])
                value = tf.where(present, inputs[name], 0.0)
                vector = self._directions[name](value) * tf.cast(present, tf.float32)
            if seed is not None and self._dropout > 0:
                vector *= keep_mask(tf.shape(vector)[:1], self._dropout, seed + position)[:, None]
            total += vector * self._scale
        return total

    def shares(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor | tf.SparseTensor]:
        """Returns index features `[batch, n]` as the share of each value in a row.

        The mean embedding of a row is then a product, `[batch, size]` by `[size, dimension]`,
        that touches no padding.
        """
        encoded: dict[str, tf.Tensor | tf.SparseTensor] = dict(inputs)
        for name, table in self._tables.items():
            places = tf.where(inputs[name] >= 0)
            counts = tf.math.bincount(
                tf.cast(places[:, 0], tf.int32), minlength=tf.shape(inputs[name])[0]
            )
            values = tf.cast(tf.gather_nd(inputs[name], places), tf.int64)
            encoded[name] = tf.SparseTensor(
                tf.stack([places[:, 0], values], axis=1),
                1.0 / tf.cast(tf.gather(counts, places[:, 0]), tf.float32),
                tf.stack([tf.shape(inputs[name], tf.int64)[0], table.input_dim]),
            )
        return encoded

    def _mean_embedding(self, name: str, indices: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
        if isinstance(indices, tf.SparseTensor):
            return tf.sparse.sparse_dense_matmul(indices, self._tables[name].embeddings)
        present = tf.cast(indices >= 0, tf.float32)[..., None]
        vectors = self._tables[name](tf.maximum(indices, 0)) * present
        return tf.reduce_sum(vectors, axis=1) / tf.maximum(tf.reduce_sum(present, axis=1), 1.0)


def keep_mask(shape: tf.Tensor, dropout: float, seed: tf.Tensor) -> tf.Tensor:
    """Returns 1.0 with the chance 1 - `dropout` and else 0.0; the same for the same seed."""
    return tf.cast(tf.random.stateless_uniform(shape, seed) >= dropout, tf.float32)
