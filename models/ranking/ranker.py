"""The ranker: a small network that scores candidates by their features, and its training."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from models.errors import DivergedError
from models.features.spec import FeaturesConfig
from models.ranking.config import RankingConfig
from models.ranking.declared import DeclaredFeatures, join
from models.ranking.lists import Lists
from models.ranking.tasks import Task

# Lists per step: few enough for fifty steps per pass, within these limits.
_STEPS_PER_EPOCH, _SMALLEST_BATCH, _LARGEST_BATCH = 50, 16, 256
_LEARNING_RATES = {"dcn": 0.01, "linear": 0.03}
# Normalised features beyond it are clipped, because the tables of the served model are larger than
# those of the training.
_LARGEST_FEATURE = 6.0
_MASKED = -1e9
_CORRECTIONS = "corrections"
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Of the features that are hidden.
_SEED = 1_000

Floats = npt.NDArray[np.float32]


class Normalisation(tf_keras.layers.Layer):
    """Converts features to z-scores."""

    def __init__(self, num_features: int) -> None:
        super().__init__(name="normalisation")
        self.mean = self.add_weight("mean", [num_features], None, "zeros", trainable=False)
        self.scale = self.add_weight("scale", [num_features], None, "ones", trainable=False)

    def adapt(self, features: Floats) -> None:
        """Set the moments of the first features to those of `features` `[n, m]`.

        Constant ones become 0. The remaining features, which are embeddings, are not changed.
        """
        number = features.shape[1]
        deviation = features.std(axis=0, dtype=np.float64)
        self.mean[:number].assign(features.mean(axis=0, dtype=np.float64))
        scale = np.where(deviation > 1e-6, 1.0 / np.maximum(deviation, 1e-6), 0.0)
        self.scale[:number].assign(scale)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Return the z-scores of `features` `[…, num_features]`."""
        normal = (features - self.mean) * self.scale
        return tf.clip_by_value(normal, -_LARGEST_FEATURE, _LARGEST_FEATURE)


class Ranker(tf_keras.layers.Layer):
    """A network that scores candidates, with embeddings of declared features.

    Args:
        config: The architecture.
        names: Names of the computed features.
        declared: The declared features.
        sizes: The sizes of the tables of those to embed; 0 for numbers.
        tasks: The tasks besides the next event, whose estimates are computed features.
    """

    def __init__(
        self,
        config: RankingConfig,
        names: Sequence[str],
        declared: FeaturesConfig,
        sizes: Mapping[str, int],
        tasks: Sequence[Task] = (),
    ) -> None:
        super().__init__(name="ranker")
        # Sorted, because a configuration that was sent to another process can have another order.
        self.of_queries, self.of_candidates = (
            DeclaredFeatures(
                {name: features[name] for name in sorted(features) if name in sizes},
                sizes,
                config.embedding_dimension,
                config.feature_dropout,
            )
            for features in (declared.query, declared.candidate)
        )
        self._dimension = config.embedding_dimension
        embedded = (*self.of_candidates.names, *self.of_queries.names)
        # The columns of each feature in the input of the network.
        self.columns = {name: slice(number, number + 1) for number, name in enumerate(names)}
        for number, name in enumerate(embedded):
            start = len(names) + number * self._dimension
            self.columns[name] = slice(start, start + self._dimension)
        self.tasks = tuple(tasks)
        num_inputs = len(names) + len(embedded) * self._dimension
        self.network = make_network(config, num_inputs, len(tasks))

    def inputs_of(
        self, lists: Lists, catalogue: Mapping[str, tf.Tensor], seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return the inputs of the network for lists of candidates.

        `catalogue` has the declared features of all candidates. `seed`, `[2]` int32, hides declared
        features at random.
        """
        distinct, index = tf.unique(tf.reshape(lists.candidates, [-1]))
        shape = tf.shape(lists.candidates)
        rows = {name: tf.gather(catalogue[name], distinct) for name in self.of_candidates.names}
        of_candidates = [
            tf.reshape(tf.gather(vectors, index), [*tf.unstack(shape), self._dimension])
            for vectors in self.of_candidates(rows, seed)
        ]
        return join(lists.features, of_candidates, self.of_queries(lists.queries, seed))

    def predict(self, inputs: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the score of the next event and the output of each task, all `[…, n]`.

        `inputs` are those of the network `[…, n, num_inputs]`.
        """
        # In one list: on several, a dense layer takes a dozen operations instead of two.
        rows = self.network(tf.reshape(inputs, [-1, self.network.input_shape[-1]]))
        outputs = tf.reshape(rows, tf.concat([tf.shape(inputs)[:-1], rows.shape[-1:]], axis=0))
        predicted = [
            inputs[..., self.columns[task.name].start] + task.scale * outputs[..., number]
            for number, task in enumerate(self.tasks, start=1)
        ]
        return outputs[..., 0], predicted


# AutoGraph has nothing to convert here, but would take ten seconds to check that.
@tf.autograph.experimental.do_not_convert
def make_network(config: RankingConfig, num_features: int, num_tasks: int = 0) -> tf_keras.Model:
    """Return a model that maps features `[n, num_features]` to outputs `[n, 1 + num_tasks]`.

    The outputs are the score of the next event, and what to add to the estimate of each task, 0 at
    first.

    References:
        Wang et al. DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
        Learning to Rank Systems. WWW 2021.
    """
    features = tf_keras.Input([num_features])
    hidden = normal = Normalisation(num_features)(features)
    if config.model == "dcn":
        for _ in range(config.cross_layers):
            hidden = tfrs.layers.dcn.Cross()(normal, hidden)
        for width in config.hidden_layers:
            hidden = tf_keras.layers.Dense(width, activation="relu")(hidden)
        hidden = tf_keras.layers.Concatenate()([hidden, normal])
    outputs = tf_keras.layers.Dense(1, use_bias=False)(hidden)
    if num_tasks:
        layer = tf_keras.layers.Dense(num_tasks, kernel_initializer="zeros", name=_CORRECTIONS)
        corrections = layer(hidden)
        outputs = tf_keras.layers.Concatenate()([outputs, corrections])
    return tf_keras.Model(features, outputs)


def train_ranker(
    ranker: Ranker,
    lists: Lists,
    catalogue: Mapping[str, tf.Tensor],
    config: RankingConfig,
    rng: np.random.Generator,
) -> None:
    """Train a ranker with a softmax over the candidates of each query, and the losses of its tasks.

    `catalogue` has the declared features of all candidates. `rng` shuffles the queries.

    Raises:
        DivergedError: The weights are not finite.
    """
    ranker.network.layers[1].adapt(lists.features[lists.is_candidate])
    number = len(lists.features)
    batch_size = int(np.clip(number // _STEPS_PER_EPOCH, _SMALLEST_BATCH, _LARGEST_BATCH))
    steps = config.epochs * -(-number // batch_size)
    rate = config.learning_rate or _LEARNING_RATES[config.model]
    optimizer = tf_keras.optimizers.AdamW(
        tf_keras.optimizers.schedules.CosineDecay(rate, steps), weight_decay=config.weight_decay
    )
    optimizer.build(ranker.trainable_variables)

    # Keras's `fit` would convert the code of Keras with AutoGraph, which takes 20 s.
    def step(batch: Lists) -> None:
        with tf.GradientTape() as tape:
            seed = tf.stack([tf.cast(optimizer.iterations, tf.int32), _SEED])
            scores, predicted = ranker.predict(ranker.inputs_of(batch, catalogue, seed))
            logits = tf.where(batch.is_candidate, scores, _MASKED)
            loss = _mean(-tf.nn.log_softmax(logits)[:, 0], batch.is_found)
            for number, (task, outputs) in enumerate(zip(ranker.tasks, predicted, strict=True)):
                labels = batch.labels[:, number]
                is_known = tf.math.is_finite(labels)
                losses = task.losses(outputs[:, 0], tf.where(is_known, labels, 0.0))
                loss += task.weight * _mean(losses, is_known)
        gradients = tape.gradient(loss, ranker.trainable_variables)
        optimizer.apply_gradients(zip(gradients, ranker.trainable_variables, strict=True))

    tensors = tf.nest.map_structure(
        lambda of: tf.TensorSpec([None, *of.shape[1:]], of.dtype), lists
    )
    traced = tf.function(step, [tensors], autograph=False)
    for _ in range(config.epochs):
        order = rng.permutation(number)
        for start in range(0, number, batch_size):
            traced(lists.take(order[start : start + batch_size]))
    if not all(np.isfinite(weights).all() for weights in ranker.get_weights()):
        raise DivergedError("the weights of the ranker are not finite: its training has diverged")


def shrink_corrections(
    ranker: Ranker, lists: Lists, catalogue: Mapping[str, tf.Tensor]
) -> dict[str, float]:
    """Multiply the corrections of each task by the share with the smallest loss in other lists.

    The ranker learns from few events, so that its corrections are too large. Returns the shares.
    """
    shares: dict[str, float] = {}
    _, predicted = ranker.predict(ranker.inputs_of(lists, catalogue))
    for number, (task, outputs) in enumerate(zip(ranker.tasks, predicted, strict=True)):
        labels = lists.labels[:, number]
        known = np.isfinite(labels)
        estimates = lists.features[known, 0, ranker.columns[task.name].start]
        corrections = outputs.numpy()[known, 0] - estimates
        losses = {
            share: float(np.mean(task.losses(estimates + share * corrections, labels[known])))
            for share in _SHARES
        }
        shares[task.name] = min(losses, key=losses.__getitem__)
    if shares:
        layer = ranker.network.get_layer(_CORRECTIONS)
        layer.set_weights([of * np.array([*shares.values()]) for of in layer.get_weights()])
    return shares


def _mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    weights = tf.cast(mask, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))
