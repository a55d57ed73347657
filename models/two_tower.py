"""The model that is fitted: two towers, the catalogue and the loss."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from models.candidate_table import CandidateTable
from models.config import ModelConfig, TrainingConfig
from models.feature_encoder import keep_mask
from models.features import FeatureSpec
from models.losses import draw_negatives, full_softmax, sampled_softmax
from models.sizes import FeatureSizes
from models.towers import CandidateTower, QueryTower


class TwoTowerModel(tfrs.Model):
    """Fits both towers on timelines.

    A batch is a dictionary: the query id index `[batch, 1]`, dense query features, and the
    candidate indices of the events `[batch, events]`, padded with -1.
    All randomness of a step is drawn from the seed and the step's number, so that a run resumed
    from a checkpoint does exactly what the uninterrupted run would have done.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        sizes: FeatureSizes,
        model: ModelConfig,
        training: TrainingConfig,
        table: CandidateTable,
        counts: npt.NDArray[np.int64],
    ) -> None:
        super().__init__()
        self._spec = spec
        self._config = model
        self._training = training
        self.query_tower = QueryTower(spec, sizes, model, training.feature_dropout)
        self.candidate_tower = CandidateTower(spec, sizes, model, training.feature_dropout)
        self._table = {name: tf.constant(values) for name, values in table.features.items()}
        self._num_candidates = table.num_candidates
        self._mean_loss = tf_keras.metrics.Mean(name="loss")
        smoothed = np.maximum(counts, 1).astype(np.float64)
        self._log_frequency = tf.constant(np.log(smoothed / smoothed.sum()), tf.float32)
        self._full = training.loss == "full_softmax" or (
            training.loss == "auto" and table.num_candidates <= training.max_full_softmax
        )
        self._catalogue = self.candidate_tower.features.shares(self._table) if self._full else {}

    @property
    def encodes_history(self) -> bool:
        """Whether the query tower looks at the events."""
        return bool(self._config.history_encoder != "none")

    @property
    def max_history(self) -> int:
        """The most events that the query tower looks at."""
        return int(self._config.max_history)

    def candidates(self, indices: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Embeds known candidates by index, `[n]` to `[n, output_dimension]`."""
        features = {name: tf.gather(values, indices) for name, values in self._table.items()}
        return self.candidate_tower(indices, features, seed=seed)

    # AutoGraph finds nothing to convert here and takes ten seconds to find it.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the optimiser, as Keras calls it."""
        step = tf.cast(self.optimizer.iterations, tf.int32)
        seed = tf.stack([tf.constant(self._training.seed % 2**31, tf.int32), step * 1000])
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True, seed=seed)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(
            (gradient, variable)
            for gradient, variable in zip(gradients, self.trainable_variables, strict=True)
            if gradient is not None
        )
        return self._report(inputs, loss)

    @tf.autograph.experimental.do_not_convert
    def test_step(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The loss without dropout, as Keras calls it."""
        return self._report(inputs, self.compute_loss(inputs, training=False))

    @property
    def metrics(self) -> list[tf_keras.metrics.Metric]:
        """What Keras resets where an epoch begins."""
        return [self._mean_loss]

    def _report(self, inputs: Mapping[str, tf.Tensor], loss: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the mean loss of the epoch's events so far."""
        events = tf.math.count_nonzero(inputs[self._spec.candidate_id] >= 0, dtype=tf.float32)
        self._mean_loss.update_state(loss, sample_weight=events)
        return {"loss": self._mean_loss.result()}

    def compute_loss(
        self,
        inputs: Mapping[str, tf.Tensor],
        training: bool = False,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the mean loss of the batch's events."""
        seed = seed if training else None
        history = inputs[self._spec.candidate_id]
        present = history >= 0
        if self._training.objective == "reconstruct":
            queries, rows = self._whole_timelines(inputs, history, present, seed)
        else:
            queries, rows = self._each_position(inputs, history, present, seed)
        targets = tf.boolean_mask(history, present)
        weights = tf.ones_like(targets, tf.float32)
        if self._full:
            vectors = self.candidate_tower(
                tf.range(self._num_candidates), self._catalogue, seed=_shifted(seed, 100)
            )
            logits = tf.matmul(queries, vectors, transpose_b=True)
            return full_softmax(logits, rows, targets, weights)
        negatives, log_expected = draw_negatives(
            targets,
            self._log_frequency,
            self._training.num_negatives,
            self._training.num_negatives,
            _shifted(seed, 200) if seed is not None else tf.zeros([2], tf.int32),
        )
        vectors = self.candidates(tf.concat([targets, negatives], axis=0), _shifted(seed, 100))
        target_vectors, negative_vectors = tf.split(
            vectors, [tf.shape(targets)[0], tf.shape(negatives)[0]]
        )
        return sampled_softmax(
            tf.gather(queries, rows),
            target_vectors,
            negative_vectors,
            targets,
            negatives,
            log_expected,
            weights,
        )

    def _whole_timelines(
        self,
        inputs: Mapping[str, tf.Tensor],
        history: tf.Tensor,
        present: tf.Tensor,
        seed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One query vector a timeline, from a random part of it; each event is a target."""
        rows = tf.cast(tf.where(present)[:, 0], tf.int32)
        encoded: tf.Tensor | float = 0.0
        if self.encodes_history:
            vectors, seen = self.query_tower.events(tf.boolean_mask(history, present))
            # Serving shows the encoder the newest events only; all of them are targets.
            places = tf.cast(tf.where(present)[:, 1], tf.int32)
            lengths = tf.reduce_sum(tf.cast(present, tf.int32), axis=1)
            is_newest = places >= tf.gather(lengths, rows) - self.max_history
            seen *= tf.cast(is_newest, tf.float32)
            seen = self._hide_some(seen, seed)
            encoded = self.query_tower.history.pooled(vectors, seen, rows, tf.shape(history)[0])
        queries = self.query_tower(
            inputs[self._spec.query_id][:, 0],
            {name: inputs[name] for name in self._spec.query_features},
            encoded,
            seed=_shifted(seed, 400),
        )
        return queries, rows

    def _hide_some(self, seen: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Hides events from the encoder, in training only."""
        if seed is None or self._training.history_dropout == 0:
            return seen
        return seen * keep_mask(tf.shape(seen), self._training.history_dropout, seed + 300)

    def _each_position(
        self,
        inputs: Mapping[str, tf.Tensor],
        history: tf.Tensor,
        present: tf.Tensor,
        seed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One query vector an event, from the events before it."""
        rows = tf.cast(tf.where(present)[:, 0], tf.int32)
        encoded: tf.Tensor | float = 0.0
        if self.encodes_history:
            vectors, seen = self.query_tower.events(history)
            seen = self._hide_some(seen, seed)
            prefixes = self.query_tower.history.prefixes(vectors, seen, self.max_history)
            encoded = tf.boolean_mask(prefixes, present)
        queries = self.query_tower(
            tf.gather(inputs[self._spec.query_id][:, 0], rows),
            {name: tf.gather(inputs[name], rows) for name in self._spec.query_features},
            encoded,
            seed=_shifted(seed, 400),
        )
        return queries, tf.range(tf.shape(rows)[0])


def _shifted(seed: tf.Tensor | None, by: int) -> tf.Tensor | None:
    return None if seed is None else seed + by
