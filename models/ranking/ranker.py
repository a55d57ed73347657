"""The ranker: a small network that scores candidates by their features, and its training."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from models.ranking.config import RankingConfig

_NUM_CROSSES = 2
_HIDDEN_LAYERS = (64, 32)
# Lists per step: few enough for fifty steps per pass, within these limits.
_STEPS_PER_EPOCH, _SMALLEST_BATCH, _LARGEST_BATCH = 50, 16, 256
_LEARNING_RATES = {"dcn": 0.01, "linear": 0.03}
_WEIGHT_DECAY = 0.01
# Normalised features beyond it are clipped, because the tables of the served model are larger than
# those of the training.
_LARGEST_FEATURE = 6.0
_MASKED = -1e9

Floats = npt.NDArray[np.float32]


class Normalisation(tf_keras.layers.Layer):
    """Converts features to z-scores."""

    def __init__(self, num_features: int) -> None:
        super().__init__(name="normalisation")
        self.mean = self.add_weight("mean", [num_features], trainable=False)
        self.scale = self.add_weight("scale", [num_features], trainable=False)

    def adapt(self, features: Floats) -> None:
        """Set the moments to those of `features` `[n, num_features]`; constant ones become 0."""
        deviation = features.std(axis=0, dtype=np.float64)
        self.mean.assign(features.mean(axis=0, dtype=np.float64))
        self.scale.assign(np.where(deviation > 1e-6, 1.0 / np.maximum(deviation, 1e-6), 0.0))

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Return the z-scores of `features` `[…, num_features]`."""
        normal = (features - self.mean) * self.scale
        return tf.clip_by_value(normal, -_LARGEST_FEATURE, _LARGEST_FEATURE)


def make_ranker(kind: str, num_features: int) -> tf_keras.Model:
    """Return a model that maps features `[…, n, num_features]` to scores `[…, n]`.

    `kind` is `RankingConfig.model`.

    References:
        Wang et al. DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
        Learning to Rank Systems. WWW 2021.
    """
    features = tf_keras.Input([None, num_features])
    hidden = normal = Normalisation(num_features)(features)
    if kind == "dcn":
        for _ in range(_NUM_CROSSES):
            hidden = tfrs.layers.dcn.Cross()(normal, hidden)
        for width in _HIDDEN_LAYERS:
            hidden = tf_keras.layers.Dense(width, activation="relu")(hidden)
        hidden = tf_keras.layers.Concatenate()([hidden, normal])
    scores = tf_keras.layers.Dense(1, use_bias=False)(hidden)
    return tf_keras.Model(features, scores[..., 0])


def train_ranker(
    features: Floats,
    is_candidate: npt.NDArray[np.bool_],
    config: RankingConfig,
    rng: np.random.Generator,
) -> tf_keras.Model:
    """Train a ranker with a softmax over the candidates of each query.

    `features` are `[num_queries, n, num_features]`; the first candidate of each query is the right
    one. `is_candidate` `[num_queries, n]` is False for padding. `rng` shuffles the queries.
    """
    ranker = make_ranker(config.model, features.shape[2])
    ranker.layers[1].adapt(features[is_candidate])
    batch_size = int(np.clip(len(features) // _STEPS_PER_EPOCH, _SMALLEST_BATCH, _LARGEST_BATCH))
    steps = config.epochs * -(-len(features) // batch_size)
    optimizer = tf_keras.optimizers.AdamW(
        tf_keras.optimizers.schedules.CosineDecay(_LEARNING_RATES[config.model], steps),
        weight_decay=_WEIGHT_DECAY,
    )
    optimizer.build(ranker.trainable_variables)

    # Keras's `fit` would convert the code of Keras with AutoGraph, which takes 20 s.
    def step(batch: tf.Tensor, is_listed: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = tf.where(is_listed, ranker(batch), _MASKED)
            loss = -tf.reduce_mean(tf.nn.log_softmax(logits)[:, 0])
        gradients = tape.gradient(loss, ranker.trainable_variables)
        optimizer.apply_gradients(zip(gradients, ranker.trainable_variables, strict=True))

    shape = [None, *features.shape[1:]]
    signature = [tf.TensorSpec(shape), tf.TensorSpec(shape[:-1], tf.bool)]
    traced = tf.function(step, signature, autograph=False)
    for _ in range(config.epochs):
        order = rng.permutation(len(features))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            traced(features[rows], is_candidate[rows])
    return ranker
