"""The Keras model for training: two towers, the catalogue and the loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.features.spec import HISTORY_TYPES_KEY, MISSING_TIME, TIMESTAMP_KEY, FeatureSpec
from models.features.vocabularies import FeatureSizes
from models.input.availability import Availability
from models.input.timeline_dataset import EVENT_WEIGHT_KEY
from models.towers.candidate_age import CandidateAge
from models.towers.candidate_and_query import CandidateTower, QueryTower
from models.towers.feature_encoder import keep_mask
from models.training.distribution import gathered, never_empty, seed_per_replica, sum_of_all
from models.training.losses import (
    draw_negatives,
    full_softmax,
    rows_candidates,
    sampled_rows_softmax,
    sampled_softmax,
    without_unavailable,
)

# Weight of a timeline's first event if nothing is known about the query. It is large enough to
# train the embedding of such queries, because the optimizer is invariant to scale, and too small to
# move the candidates. With weight 1, RetailRocket sessions had recall@20 / mrr@20 of .548 / .296.
_FIRST_EVENT_WEIGHT = 0.01
_CANDIDATES_PER_BLOCK = 32_768
# The quantile of the times of candidates that is near the newest training events.
_REFERENCE_QUANTILE = 0.99


class TwoTowerModel(tfrs.Model):
    """Model that trains both towers on batches of `TimelineDataset`.

    All random numbers of a step depend only on the seed and the step number, so a run that resumes
    from a checkpoint computes exactly the same as an uninterrupted run.

    Cold candidates, which have no training events, are not negatives: otherwise, they would all be
    trained to have low scores. They are represented by their features only. Without features,
    nothing distinguishes them, and low scores are right.

    `candidate_features` are those of `read_candidate_features`. `counts` `[num_candidates]` are the
    numbers of training events of the candidates, in `num_timelines` timelines. With `availability`,
    a candidate is a negative only for events at whose time it was available; with `reconstruct`,
    for timelines during which it was, because a timeline has only one normaliser.

    Example:
        model = TwoTowerModel(spec, sizes, ModelConfig(), TrainingConfig(), features, counts, 943)
        model.compile(optimizer=tf_keras.optimizers.Adam(0.01))
        model.fit(dataset.epochs(0, 1))
    """

    def __init__(
        self,
        spec: FeatureSpec,
        sizes: FeatureSizes,
        config: ModelConfig,
        training: TrainingConfig,
        candidate_features: Mapping[str, npt.NDArray[Any]],
        counts: npt.NDArray[np.int64],
        num_timelines: int,
        availability: Availability | None = None,
    ) -> None:
        super().__init__()
        self.availability = availability
        self.spec = spec
        self.sizes = sizes
        self.config = config
        self._training = training
        is_warm = counts > 0 if spec.candidate_features else np.ones(len(counts), bool)
        dropout = training.feature_dropout
        age, self._starts = None, None
        if (
            config.candidate_age
            and training.objective == "next_candidate"
            and availability is not None
            and (known_starts := availability.start[availability.start != MISSING_TIME]).size
        ):
            self._starts = tf.constant(availability.start)
            # Not the newest: it may be planned, or an error.
            age = CandidateAge(int(np.quantile(known_starts, _REFERENCE_QUANTILE)))
        smoothed = np.maximum(counts, 1).astype(np.float64)
        biases = None
        if training.objective == "next_candidate":
            # Starting from 0, hit_rate@10 of the newest training events of MovieLens 100K was .208
            # instead of .221. With `reconstruct`, this had no advantage. Cold candidates have a
            # bias of 0, which is the mean.
            biases = np.log(smoothed)
            biases = (biases - biases[is_warm].mean()).astype(np.float32)
        self.candidate_tower = CandidateTower(
            spec, sizes, config, dropout, np.append(is_warm, False), age, biases
        )
        self.candidate_features = {
            name: tf.constant(values) for name, values in candidate_features.items()
        }
        self.num_candidates = sizes.candidates - 1
        self._mean_loss = tf_keras.metrics.Mean(name="loss")
        warm = np.flatnonzero(is_warm)
        self._warm = tf.constant(warm, tf.int32)
        # The number of each warm candidate; -1 for cold ones, which cannot be targets.
        self._warm_number = tf.constant(np.where(is_warm, np.cumsum(is_warm) - 1, -1))
        self._log_frequency = tf.constant(np.log(smoothed / counts.sum()), tf.float32)
        step_timelines = min(training.batch_size, num_timelines)
        self._events_per_step = float(counts.sum()) / num_timelines * step_timelines
        queries_per_step = self._events_per_step
        if training.objective == "reconstruct":
            queries_per_step = training.batch_size
        is_small = (
            len(warm) <= training.max_full_softmax
            and len(warm) * queries_per_step <= training.max_full_logits
        )
        self.uses_full_softmax = (
            is_small if training.loss == "auto" else training.loss == "full_softmax"
        )
        self._warm_features = (
            self.candidate_tower.features.shares(
                {name: tf.gather(values, warm) for name, values in self.candidate_features.items()}
            )
            if self.uses_full_softmax
            else {}
        )
        catalogue = self.candidate_features
        if self.uses_full_softmax:
            catalogue = self.candidate_tower.features.shares(self.candidate_features)
        shared = self.candidate_tower if config.share_candidate_ids else None
        self.query_tower = QueryTower(
            spec, sizes, config, dropout, shared, catalogue, np.append(counts > 0, False), age
        )
        # The queries for the first events of all timelines then have the same embedding.
        self._first_events_share_query = (
            self.query_tower.start is not None
            and config.encodes_history
            and not config.query_id_embedding
            and not spec.request_features
        )

    def candidates(self, indices: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Embed known candidates by index, `[n]` to `[n, output_dimension]`."""
        features = {
            name: tf.gather(values, indices) for name, values in self.candidate_features.items()
        }
        return self.candidate_tower(indices, features, seed, self._starts_of(indices))

    def _starts_of(self, indices: tf.Tensor) -> tf.Tensor | None:
        return None if self._starts is None else tf.gather(self._starts, indices)

    def all_candidates(self) -> npt.NDArray[np.float32]:
        """Embed all known candidates, in blocks that bound the memory of their features."""
        ends = [*range(_CANDIDATES_PER_BLOCK, self.num_candidates, _CANDIDATES_PER_BLOCK)]
        blocks = zip([0, *ends], [*ends, self.num_candidates], strict=True)
        return np.concatenate([self.candidates(tf.range(*block)).numpy() for block in blocks])

    # AutoGraph has nothing to convert here, but would take ten seconds to check that.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Run one optimizer step; Keras calls this."""
        step = tf.cast(self.optimizer.iterations, tf.int32)
        seed = tf.stack([tf.constant(self._training.seed % 2**31, tf.int32), step * 1000])
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True, seed=seed)
            # The gradients of several replicas are summed. If each replica multiplies its mean
            # loss by its share of the weight, the sum is the mean over all events.
            weight = self._total_weight(inputs)
            part = loss * tf.math.divide_no_nan(weight, sum_of_all(weight))
            if self._training.objective != "reconstruct":
                # Batches have different numbers of events, but all events should have the same
                # influence.
                part *= sum_of_all(self._num_events(inputs)) / self._events_per_step
        gradients = tape.gradient(part, self.trainable_variables)
        self.optimizer.apply_gradients(
            (never_empty(gradient), variable)
            for gradient, variable in zip(gradients, self.trainable_variables, strict=True)
            if gradient is not None
        )
        return self._report(inputs, loss)

    @tf.autograph.experimental.do_not_convert
    def test_step(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Compute the loss without dropout; Keras calls this."""
        return self._report(inputs, self.compute_loss(inputs, training=False))

    @property
    def metrics(self) -> list[tf_keras.metrics.Metric]:
        """Return the metrics that Keras resets at the start of an epoch."""
        return [self._mean_loss]

    def _report(self, inputs: Mapping[str, tf.Tensor], loss: tf.Tensor) -> dict[str, tf.Tensor]:
        """Update the mean loss of the epoch's events so far, and return it."""
        self._mean_loss.update_state(loss, sample_weight=self._total_weight(inputs))
        return {"loss": self._mean_loss.result()}

    def _num_events(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.math.count_nonzero(inputs[self.spec.candidate_id] >= 0, dtype=tf.float32)

    def _total_weight(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_sum(self._event_weights(inputs))

    def _event_weights(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the weight of each event in the loss, `[batch, events]`; padding has 0."""
        present = tf.cast(inputs[self.spec.candidate_id] >= 0, tf.float32)
        return present * inputs.get(EVENT_WEIGHT_KEY, 1.0)

    def compute_loss(
        self, inputs: Mapping[str, tf.Tensor], training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return the mean loss of the batch's events.

        With several replicas, these are the events of this replica, but in-batch negatives are
        drawn from the events of all replicas.
        """
        seed = seed if training else None
        row_seed = None if seed is None else seed_per_replica(seed)
        history = inputs[self.spec.candidate_id]
        weight = self._event_weights(inputs)
        if row_seed is not None and self._training.shuffle_history:
            known = (HISTORY_TYPES_KEY, TIMESTAMP_KEY, *self.spec.context)
            names = [name for name in known if name in inputs]
            columns = history, weight, *(inputs[name] for name in names)
            history, weight, *shuffled = _shuffled(row_seed + 500, *columns)
            inputs = {**inputs, **dict(zip(names, shuffled, strict=True))}
        present = history >= 0
        targets, weights = tf.boolean_mask(history, present), tf.boolean_mask(weight, present)
        reconstructs = self._training.objective == "reconstruct"
        if reconstructs:
            queries = self._embed_timelines(inputs, history, row_seed)
            rows = tf.cast(tf.where(present)[:, 0], tf.int32)
        else:
            queries = self.embed_positions(inputs, history, row_seed)
            if self._first_events_share_query:
                known = tf.cast(self.query_tower.known(history), tf.int32)
                first = tf.boolean_mask(tf.cumsum(known, axis=1, exclusive=True) == 0, present)
                weights *= tf.where(first, _FIRST_EVENT_WEIGHT, 1.0)
        candidate_seed = None if seed is None else seed + 100
        if self.uses_full_softmax:
            negatives, log_expected = self._warm, tf.zeros(self._warm.shape)
            negative_vectors = self.candidate_tower(
                negatives, self._warm_features, candidate_seed, self._starts_of(negatives)
            )
            numbers = tf.cast(tf.gather(self._warm_number, targets), tf.int32)
            if reconstructs:
                logits = tf.matmul(queries, negative_vectors, transpose_b=True)
                logits = self._available_logits(logits, inputs, negatives, rows, numbers)
                return full_softmax(logits, rows, numbers, weights)
            target_vectors, hardest = tf.gather(negative_vectors, numbers), 0
        else:
            negatives, log_expected = draw_negatives(
                gathered(targets),
                self._warm,
                self._log_frequency,
                self._training.num_negatives,
                seed + 200 if seed is not None else tf.zeros([2], tf.int32),
            )
            if reconstructs:
                columns, own, log_weights = rows_candidates(targets, negatives, log_expected)
                vectors = self.candidates(columns, candidate_seed)
                logits = tf.matmul(queries, vectors, transpose_b=True)
                logits = self._available_logits(logits, inputs, columns, rows, own)
                return sampled_rows_softmax(logits, rows, own, log_weights, weights)
            vectors = self.candidates(tf.concat([targets, negatives], axis=0), candidate_seed)
            sizes = [tf.shape(targets)[0], tf.shape(negatives)[0]]
            target_vectors, negative_vectors = tf.split(vectors, sizes)
            hardest = self._training.hard_negatives
        is_available = None
        if self.availability is not None:
            of_negatives = self.availability.take(negatives)
            times = tf.boolean_mask(inputs[TIMESTAMP_KEY], present)[:, None]
            is_available = lambda events: of_negatives.at(times[events])  # noqa: E731
            if self.query_tower.age is not None:
                # The influence of an age below 0 would be too large.
                known = self.availability.take(targets).at(times[:, 0])
                weights *= tf.cast(known, tf.float32)
        return sampled_softmax(
            queries,
            target_vectors,
            negative_vectors,
            targets,
            negatives,
            log_expected,
            weights,
            hardest,
            is_available,
        )

    def _available_logits(
        self,
        logits: tf.Tensor,
        inputs: Mapping[str, tf.Tensor],
        candidates: tf.Tensor,
        rows: tf.Tensor,
        targets: tf.Tensor,
    ) -> tf.Tensor:
        """Hide candidates that were available at no time between the events of a timeline."""
        if self.availability is None:
            return logits
        times, present = inputs[TIMESTAMP_KEY], inputs[self.spec.candidate_id] >= 0
        first = tf.reduce_min(tf.where(present, times, times.dtype.max), axis=1, keepdims=True)
        last = tf.reduce_max(tf.where(present, times, times.dtype.min), axis=1, keepdims=True)
        is_available = self.availability.take(candidates).between(first, last)
        return without_unavailable(logits, is_available, rows, targets)

    def _embed_timelines(
        self, inputs: Mapping[str, tf.Tensor], history: tf.Tensor, seed: tf.Tensor | None
    ) -> tf.Tensor:
        """Embed one query per timeline, `[batch, dimension]`."""
        encoded: tf.Tensor | float = 0.0
        if self.config.encodes_history:
            tower = self.query_tower
            # As in serving, the encoder reads only the newest events, but all events are targets.
            known = tower.known(history)
            number = tf.cumsum(tf.cast(known, tf.int32), axis=1, reverse=True)
            visible = known & (number <= self.config.max_history)
            if seed is not None and self._training.history_dropout > 0:
                dropout = self._training.history_dropout
                visible &= keep_mask(tf.shape(history), dropout, seed + 300) > 0
            vectors = self._event_vectors(inputs, history, visible, seed)[1]
            encoded = tower.history.last(vectors, self.config.max_history)
        return self._embed_queries(inputs, encoded, seed)

    def embed_positions(
        self, inputs: Mapping[str, tf.Tensor], history: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Embed one query per event, from the events before it, `[num_events, dimension]`.

        `inputs` has a row per timeline. `history` `[batch, events]` contains candidate indices,
        oldest first, and -1 for padding. `seed` switches on dropout.
        """
        positions = tf.cast(tf.where(history >= 0), tf.int32)
        rows = positions[:, 0]
        encoded: tf.Tensor | float = 0.0
        if self.config.encodes_history:
            tower = self.query_tower
            visible = tower.known(history)
            if seed is not None and self._training.history_dropout > 0:
                dropout = self._training.history_dropout
                visible &= keep_mask(tf.shape(history), dropout, seed + 300) > 0
            events, vectors = self._event_vectors(inputs, history, visible, seed)
            encoder_seed = None if seed is None else seed + 600
            states = tower.history.prefixes(vectors, self.config.max_history, encoder_seed)
            num_before = tf.cumsum(tf.cast(visible, tf.int32), axis=1, exclusive=True)
            num_before = tf.gather_nd(num_before, positions)
            # State 0 is that of an empty history.
            starts = tf.gather(tf.cast(events.row_starts(), tf.int32), rows)
            encoded = tf.gather(
                tf.pad(states, [[1, 0], [0, 0]]), tf.where(num_before > 0, starts + num_before, 0)
            )
        names = (self.spec.query_id, *self.spec.query_features)
        repeated = {name: tf.gather(inputs[name], rows) for name in names}
        for name in self.spec.context:
            repeated[name] = tf.gather_nd(inputs[name], positions)[:, None]
        if self.query_tower.age is not None:
            repeated[TIMESTAMP_KEY] = tf.gather_nd(inputs[TIMESTAMP_KEY], positions)
        return self._embed_queries(repeated, encoded, seed)

    def _event_vectors(
        self,
        inputs: Mapping[str, tf.Tensor],
        history: tf.Tensor,
        visible: tf.Tensor,
        seed: tf.Tensor | None,
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Return the visible events `[batch, (events)]` and their embeddings."""
        events, types = tf.ragged.boolean_mask(history, visible), None
        if HISTORY_TYPES_KEY in inputs:
            types = tf.ragged.boolean_mask(inputs[HISTORY_TYPES_KEY], visible)
        event_seed = None if seed is None else seed + 600
        return events, self.query_tower.vectors(events, types, seed=event_seed)

    def _embed_queries(
        self, inputs: Mapping[str, tf.Tensor], encoded: tf.Tensor | float, seed: tf.Tensor | None
    ) -> tf.Tensor:
        return self.query_tower(
            inputs[self.spec.query_id][:, 0],
            {name: inputs[name] for name in self.spec.request_features},
            encoded,
            seed=None if seed is None else seed + 400,
            times=inputs.get(TIMESTAMP_KEY),
        )


def _shuffled(seed: tf.Tensor, history: tf.Tensor, *columns: tf.Tensor) -> list[tf.Tensor]:
    """Shuffle the events of each row, in all columns alike; padding stays at the end."""
    keys = tf.random.stateless_uniform(tf.shape(history), seed)
    order = tf.argsort(keys + 2.0 * tf.cast(history < 0, tf.float32), axis=1)
    return [tf.gather(values, order, batch_dims=1) for values in (history, *columns)]
