"""The model that is fitted: two towers, the catalogue and the loss."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from models.features.feature_encoder import keep_mask
from models.features.sizes import FeatureSizes
from models.features.spec import FeatureSpec
from models.input.candidate_table import CandidateTable
from models.input.event_weights import EVENT_WEIGHT_KEY
from models.towers.towers import CandidateTower, QueryTower
from models.training.config import ModelConfig, TrainingConfig
from models.training.losses import draw_negatives, full_softmax, sampled_softmax
from models.training.replicas import gathered, never_empty, seed_of_rows, share_of_all, sum_of_all

# What a timeline's first event counts where nothing is known of the query: enough for the vector
# that is asked by then, whose optimiser minds no scale, and too little to pull the candidates.
# RetailRocket's sessions, recall@20 / mrr@20 on validation: .548 / .296 with 1.
_FIRST_EVENT_WEIGHT = 0.01


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
        num_timelines: int | None = None,
    ) -> None:
        super().__init__()
        self._spec = spec
        self._config = model
        self._training = training
        self.candidate_tower = CandidateTower(spec, sizes, model, training.feature_dropout)
        self.query_tower = QueryTower(
            spec,
            sizes,
            model,
            training.feature_dropout,
            self.candidate_tower.ids if model.share_candidate_ids else None,
        )
        self._table = {name: tf.constant(values) for name, values in table.features.items()}
        self._num_candidates = table.num_candidates
        self._mean_loss = tf_keras.metrics.Mean(name="loss")
        smoothed = np.maximum(counts, 1).astype(np.float64)
        self._log_frequency = tf.constant(np.log(smoothed / smoothed.sum()), tf.float32)
        # None: it is not known how many timelines share the events.
        self._events_a_step = (
            float(counts.sum()) / num_timelines * min(training.batch_size, num_timelines)
            if num_timelines
            else None
        )
        self._full = _is_full(training, table.num_candidates, self._events_a_step)
        self._catalogue = self.candidate_tower.features.shares(self._table) if self._full else {}

    @property
    def config(self) -> ModelConfig:
        """The settings it was built with."""
        return self._config

    @property
    def encodes_history(self) -> bool:
        """Whether the query tower looks at the events."""
        return bool(self._config.history_encoder != "none")

    @property
    def takes_whole_catalogue(self) -> bool:
        """Whether the loss is the full softmax."""
        return self._full

    @property
    def num_candidates(self) -> int:
        """Size of the catalogue."""
        return self._num_candidates

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
            # Of several replicas the gradients are summed.
            part = loss * share_of_all(self._total_weight(inputs))
            part *= self._share(sum_of_all(self._num_events(inputs)))
        gradients = tape.gradient(part, self.trainable_variables)
        self.optimizer.apply_gradients(
            (never_empty(gradient), variable)
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
        self._mean_loss.update_state(loss, sample_weight=self._total_weight(inputs))
        return {"loss": self._mean_loss.result()}

    def _share(self, num_events: tf.Tensor) -> tf.Tensor | float:
        """Returns how many events the batch has, beside what a batch has on average.

        Batches of timelines of one length differ in their events, and each event should count as
        much as any other.
        """
        if self._events_a_step is None or self._training.objective == "reconstruct":
            return 1.0
        return num_events / self._events_a_step

    def _num_events(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.math.count_nonzero(inputs[self._spec.candidate_id] >= 0, dtype=tf.float32)

    def _total_weight(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the weight that the mean loss of the batch has beside that of another."""
        if EVENT_WEIGHT_KEY not in inputs:
            return self._num_events(inputs)
        present = inputs[self._spec.candidate_id] >= 0
        return tf.reduce_sum(tf.where(present, inputs[EVENT_WEIGHT_KEY], 0.0))

    def compute_loss(
        self,
        inputs: Mapping[str, tf.Tensor],
        training: bool = False,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the mean loss of the batch's events.

        With several replicas: of the events of this one, against negatives drawn from all of them.
        """
        seed = seed if training else None
        rows_seed = None if seed is None else seed_of_rows(seed)
        history = inputs[self._spec.candidate_id]
        weight = inputs.get(EVENT_WEIGHT_KEY, tf.ones_like(history, tf.float32))
        if rows_seed is not None and self._training.shuffle_history:
            history, weight = _shuffled(history, weight, rows_seed + 500)
        present = history >= 0
        targets, weights = tf.boolean_mask(history, present), tf.boolean_mask(weight, present)
        if self._training.objective == "next_candidate" and self._starts_from_nothing:
            known = tf.cast(self.query_tower.known(history), tf.int32)
            first = tf.boolean_mask(tf.cumsum(known, axis=1, exclusive=True) == 0, present)
            weights *= tf.where(first, _FIRST_EVENT_WEIGHT, 1.0)
        if self._training.objective == "reconstruct":
            queries, rows = self._whole_timelines(inputs, history, present, rows_seed)
        else:
            queries = self.embed_positions(inputs, history, present, rows_seed)
        if self._full:
            vectors = self.candidate_tower(
                tf.range(self._num_candidates), self._catalogue, seed=_shifted(seed, 100)
            )
            if self._training.objective == "reconstruct":
                logits = tf.matmul(queries, vectors, transpose_b=True)
                return full_softmax(logits, rows, targets, weights)
            return sampled_softmax(
                queries,
                tf.gather(vectors, targets),
                vectors,
                targets,
                tf.range(self._num_candidates),
                tf.zeros([self._num_candidates]),
                weights,
            )
        negatives, log_expected = draw_negatives(
            gathered(targets),
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
            tf.gather(queries, rows) if self._training.objective == "reconstruct" else queries,
            target_vectors,
            negative_vectors,
            targets,
            negatives,
            log_expected,
            weights,
            self._training.hard_negatives,
        )

    def _whole_timelines(
        self,
        inputs: Mapping[str, tf.Tensor],
        history: tf.Tensor,
        present: tf.Tensor,
        seed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One query vector a timeline, from a random part of it; each event is a target.

        Returns:
            Queries `[batch, dimension]` and the row of each event, `[num_events]`.
        """
        encoded: tf.Tensor | float = 0.0
        if self.encodes_history:
            tower = self.query_tower
            events = tf.ragged.boolean_mask(history, tower.known(history))
            # Serving shows the encoder the newest events only; all of them are targets.
            events = events[:, -self.max_history :]
            if seed is not None and self._training.history_dropout > 0:
                shown = self._shown(tf.shape(events.values), seed)
                events = tf.ragged.boolean_mask(events, events.with_values(shown))
            encoded = tower.history.last(tower.vectors(events))
        queries = self.query_tower(
            inputs[self._spec.query_id][:, 0],
            {name: inputs[name] for name in self._spec.query_features},
            encoded,
            seed=_shifted(seed, 400),
        )
        return queries, tf.cast(tf.where(present)[:, 0], tf.int32)

    def embed_positions(
        self,
        inputs: Mapping[str, tf.Tensor],
        history: tf.Tensor,
        present: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embeds each timeline's query before each of its events, from the events before it.

        Args:
            inputs: Query id and features, a row for each timeline.
            history: `[batch, events]` int32 candidate indices, oldest first.
            present: `[batch, events]`, which of them are events and not padding.
            seed: `[2]` int32, in training only.

        Returns:
            `[num_events, output_dimension]` float32, row by row.
        """
        places = tf.cast(tf.where(present), tf.int32)
        rows = places[:, 0]
        encoded: tf.Tensor | float = 0.0
        if self.encodes_history:
            tower = self.query_tower
            shown = tower.known(history)
            if seed is not None and self._training.history_dropout > 0:
                shown &= self._shown(tf.shape(history), seed)
            events = tf.ragged.boolean_mask(history, shown)
            states = tower.history.prefixes(tower.vectors(events), self.max_history)
            before = tf.cumsum(tf.cast(shown, tf.int32), axis=1, exclusive=True)
            before = tf.gather_nd(before, places)
            # The first of all: the state of an empty history.
            starts = tf.gather(tf.cast(events.row_starts(), tf.int32), rows)
            encoded = tf.gather(
                tf.pad(states, [[1, 0], [0, 0]]), tf.where(before > 0, starts + before, 0)
            )
        queries: tf.Tensor = self.query_tower(
            tf.gather(inputs[self._spec.query_id][:, 0], rows),
            {name: tf.gather(inputs[name], rows) for name in self._spec.query_features},
            encoded,
            seed=_shifted(seed, 400),
        )
        return queries

    @property
    def _starts_from_nothing(self) -> bool:
        """Whether a timeline's first event is asked for by one vector that all queries share."""
        config = self._config
        return (
            self.query_tower.has_start
            and config.history_encoder != "none"
            and not config.query_id_embedding
            and not self._spec.query_features
        )

    def _shown(self, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws which events the encoder may see, in training only."""
        return keep_mask(shape, self._training.history_dropout, seed + 300) > 0


def _is_full(training: TrainingConfig, num_candidates: int, events_a_step: float | None) -> bool:
    """Whether the loss takes the whole catalogue."""
    if training.loss != "auto":
        return training.loss == "full_softmax"
    rows: float = training.batch_size  # one query a timeline
    if training.objective != "reconstruct" and events_a_step is not None:
        rows = events_a_step
    return (
        num_candidates <= training.max_full_softmax
        and rows * num_candidates <= training.max_full_logits
    )


def _shuffled(
    history: tf.Tensor, weight: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts the events of each row into a new order; padding stays behind them."""
    keys = tf.random.stateless_uniform(tf.shape(history), seed)
    order = tf.argsort(keys + 2.0 * tf.cast(history < 0, tf.float32), axis=1)
    return tf.gather(history, order, batch_dims=1), tf.gather(weight, order, batch_dims=1)


def _shifted(seed: tf.Tensor | None, by: int) -> tf.Tensor | None:
    return None if seed is None else seed + by
