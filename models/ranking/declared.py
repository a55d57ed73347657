"""The declared features of queries and candidates, which the ranker embeds itself.

The retriever's vectors contain these features too, but those of two trainings are not comparable.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras

from models.features.spec import FeatureConfig
from models.towers.feature_encoder import FeatureEncoder


class DeclaredFeatures(tf_keras.layers.Layer):
    """Layer that embeds each feature of queries or of candidates by itself.

    Example:
        features = {"genre": FeatureConfig(kind="categorical")}
        layer = DeclaredFeatures(features, {"genre": 20}, dimension=4, dropout=0.5)
        [genres] = layer({"genre": tf.constant([[3], [7]])})  # [2, 4]
    """

    def __init__(
        self,
        features: Mapping[str, FeatureConfig],
        sizes: Mapping[str, int],
        dimension: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.names = tuple(features)
        self._encoders = {
            name: FeatureEncoder({name: feature}, sizes, dimension, dropout)
            for name, feature in features.items()
        }
        for name, feature in features.items():  # creates the variables
            missing = tf.fill([1, 1], -1 if feature.is_index else float("nan"))
            self._encoders[name]({name: missing})

    def call(
        self, inputs: Mapping[str, tf.Tensor], seed: tf.Tensor | None = None
    ) -> list[tf.Tensor]:
        """Return one embedding `[batch, dimension]` per feature.

        `inputs` has the output of `models.input.transformed_features.dense_features`. `seed`, `[2]`
        int32, hides features at random.
        """
        return [
            encode({name: inputs[name]}, seed if seed is None else seed + number)
            for number, (name, encode) in enumerate(self._encoders.items())
        ]

    def table(self, name: str) -> tf.Variable:
        """Return the weights of a feature: the table of a categorical one."""
        return self._encoders[name].variables[0]


def join(
    features: tf.Tensor, of_candidates: Sequence[tf.Tensor], of_queries: Sequence[tf.Tensor]
) -> tf.Tensor:
    """Append embeddings to the computed features `[batch, n, num_features]`.

    Those of candidates are `[batch, n, …]`, and those of queries `[batch, …]`.
    """
    if not (of_candidates or of_queries):
        return features
    shape = tf.unstack(tf.shape(features)[:2])
    spread = [tf.broadcast_to(of[:, None], [*shape, of.shape[1]]) for of in of_queries]
    return tf.concat([features, *of_candidates, *spread], axis=2)
