"""The encoder of query or candidate features: the sum of one vector per feature."""

from collections.abc import Mapping

import tensorflow as tf
import tf_keras

from models.features.spec import FeatureConfig


class FeatureEncoder(tf_keras.layers.Layer):
    """Layer that sums an embedding per index feature and a projection per number or vector.

    The embeddings of several values of a feature are averaged. A missing feature adds nothing. In
    training, each feature of a row is hidden with probability `dropout`, so that the tower learns
    to work without it. The sum is multiplied by `scale`.

    References:
        Kula. Metadata Embeddings for User and Item Cold-start Recommendations. 2015. Eq. 1.

    Example:
        encoder = FeatureEncoder({"genre": FeatureConfig(kind="categorical")}, {"genre": 20}, 64, 0)
        vectors = encoder({"genre": tf.constant([[3], [7]])})  # [2, 64]
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
            if feature.is_index
        }
        self._directions = {
            name: tf_keras.layers.Dense(dimension, name=f"{name}_direction")
            for name, feature in features.items()
            if not feature.is_index
        }
        for table in self._tables.values():
            table.build(None)

    @property
    def has_features(self) -> bool:
        """Return True if there is a feature to encode."""
        return bool(self._features)

    def call(
        self, inputs: Mapping[str, tf.Tensor], seed: tf.Tensor | None = None
    ) -> tf.Tensor | float:
        """Encode `[batch, n]` features to `[batch, dimension]`, or to 0.0 if there are none.

        `inputs` is the output of `models.input.transformed_features.dense_features` or, faster for
        rows that are encoded repeatedly, of `shares`. `seed`, `[2]` int32, switches on dropout.
        """
        total: tf.Tensor | float = 0.0
        for number, (name, feature) in enumerate(self._features.items()):
            if feature.is_index:
                vector = self._mean_embedding(name, inputs[name])
            else:
                present = tf.reduce_all(tf.math.is_finite(inputs[name]), axis=1, keepdims=True)
                value = tf.where(present, inputs[name], 0.0)
                if feature.kind == "vector":
                    # Pretrained embeddings have lengths of their own.
                    value = tf.math.l2_normalize(value, axis=1)
                vector = self._directions[name](value) * tf.cast(present, tf.float32)
            if seed is not None and self._dropout > 0:
                vector *= keep_mask(tf.shape(vector)[:1], self._dropout, seed + number)[:, None]
            total += vector * self._scale
        return total

    def shares(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor | tf.SparseTensor]:
        """Convert index features `[batch, n]` to the share of each value in a row.

        The mean embedding is then a product of a sparse `[batch, size]` matrix and the table
        `[size, dimension]`, which does no work for padding.
        """
        encoded: dict[str, tf.Tensor | tf.SparseTensor] = dict(inputs)
        for name, table in self._tables.items():
            positions = tf.where(inputs[name] >= 0)
            rows = positions[:, 0]
            counts = tf.math.bincount(tf.cast(rows, tf.int32), minlength=tf.shape(inputs[name])[0])
            values = tf.cast(tf.gather_nd(inputs[name], positions), tf.int64)
            encoded[name] = tf.SparseTensor(
                tf.stack([rows, values], axis=1),
                1.0 / tf.cast(tf.gather(counts, rows), tf.float32),
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
    """Return a mask that is 0.0 with probability `dropout`, else 1.0; `seed` determines it."""
    return tf.cast(tf.random.stateless_uniform(shape, seed) >= dropout, tf.float32)
