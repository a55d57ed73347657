"""Training batches of transformed timelines."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import tensorflow as tf

from models.features.spec import (
    EVENT_TYPE_KEY,
    RATING_KEY,
    TIMESTAMP_KEY,
    FeatureSpec,
    event_weight_key,
)
from models.input.hold_back import HoldBack
from models.input.transformed_features import dense_features, pad_indices, parsing_spec

EVENT_WEIGHT_KEY = "event_weight"
# Default limit of the size of timelines in memory; enough for about 50 million events.
MEMORY_BYTES = 256 << 20
_READ_BYTES = 8 << 20
_ROWS_PER_BLOCK = 4096
_HASH_BUCKETS = 1_000_000
_BATCHES_PER_GROUP = 16
# Number of timelines to shuffle at a time if they are not in memory.
_SHUFFLED_FROM_FILES = 100_000


class TimelineDataset:
    """Batches of the transformed split `train`, in an order determined by the seed.

    A batch is a dictionary of the query ID index `[batch, 1]`, the candidate indices of the events
    `[batch, events]`, dense query features, and event weights `[batch, events]` if there are any.
    `validation_fraction` of the timelines, chosen by a hash of their events, are held out.

    Args:
        files: GZIP TFRecords of transformed timelines.
        bucket_by_length: Whether to sort the timelines of sixteen batches at a time by length, and
            to shuffle these batches, so that a batch has little padding.
        event_weights: See `TrainingConfig.event_weights`.
        hold_back: Rule that leaves out the newest events of timelines, or None.
        memory_bytes: Maximum size of the timelines in memory; larger data is read from the files in
            each epoch.

    Attributes:
        warnings: Sentences about `event_weights` that have no effect on these timelines.

    Raises:
        ValueError: No timeline is left for training or for validation.

    Example:
        dataset = TimelineDataset(files, spec, batch_size=64, validation_fraction=0.1, seed=42)
        for batch in dataset.epochs(0, 1):
            model.compute_loss(batch)
    """

    def __init__(
        self,
        files: Sequence[str],
        spec: FeatureSpec,
        batch_size: int,
        validation_fraction: float,
        seed: int,
        *,
        bucket_by_length: bool = False,
        event_weights: Mapping[str, float] | None = None,
        hold_back: HoldBack | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._spec = spec
        self._batch_size = batch_size
        self._held_out_buckets = int(validation_fraction * _HASH_BUCKETS)
        self._seed = seed
        self._bucket_by_length = bucket_by_length
        self._event_weights = event_weights or {}
        self._hold_back = hold_back
        self._weight_key = event_weight_key(spec.columns, self._event_weights)
        self._used_weights: set[float] = set()
        self._unknown_types, self._known_types = set(self._event_weights), [""]
        self._read(files, memory_bytes)
        self.warnings = self._weights_without_effect()
        if self.num_timelines == 0 or (self._held_out_buckets and not self._num_held_out):
            raise ValueError(
                "training and validation must each have a timeline, but "
                f"`training.validation_fraction` {validation_fraction:g} leaves "
                f"{self.num_timelines} for training and {self._num_held_out} for validation"
            )
        self.steps_per_epoch = -(-self.num_timelines // batch_size)
        # Keras expects None if there is no validation data.
        self.validation_steps = -(-self._num_held_out // batch_size) or None

    def _read(self, files: Sequence[str], memory_bytes: int) -> None:
        """Count the timelines, and keep them in memory if they are not too large."""
        blocks = (
            tf.data.TFRecordDataset(files, compression_type="GZIP", buffer_size=_READ_BYTES)
            .batch(_ROWS_PER_BLOCK)
            .map(self._with_events)
            .map(lambda rows: (rows, self._is_held_out(rows)))
            .prefetch(1)
        )
        counts, kept = [0, 0], ([tf.constant([], tf.string)], [tf.constant([], tf.string)])
        num_bytes = 0
        for rows, is_held_out in blocks:
            num_bytes += int(tf.reduce_sum(tf.strings.length(rows)))
            if self._weight_key is not None:
                self._count_weights(rows)
            for side in (False, True):
                chosen = tf.boolean_mask(rows, is_held_out == side)
                counts[side] += len(chosen)
                if num_bytes <= memory_bytes:
                    kept[side].append(chosen)
        self.num_timelines, self._num_held_out = counts
        self.is_in_memory = num_bytes <= memory_bytes
        self._training, self._held_out = (
            tf.data.Dataset.from_tensor_slices(tf.concat(kept[side], axis=0))
            if self.is_in_memory
            else blocks.map(
                lambda rows, is_held_out, side=side: tf.boolean_mask(rows, is_held_out == side)
            ).unbatch()
            for side in (False, True)
        )

    def _count_weights(self, rows: tf.Tensor) -> None:
        parsed = tf.io.parse_example(rows, self._weight_parsing)
        values = tf.unique(parsed[self._weight_key].values)[0]
        if len(self._used_weights) < 2:
            self._used_weights |= set(event_weights(values, self._event_weights).numpy().tolist())
        if self._weight_key == EVENT_TYPE_KEY and self._unknown_types:
            types = [value.decode() for value in values.numpy().tolist()]
            self._unknown_types.difference_update(types)
            self._known_types = types[:5]

    def _weights_without_effect(self) -> list[str]:
        if len(self._used_weights) == 1:
            return [
                "`training.event_weights` has no effect: every training event has the weight "
                f"{min(self._used_weights):g}"
            ]
        if self._weight_key != EVENT_TYPE_KEY or not self._unknown_types:
            return []
        return [
            f"`training.event_weights` has no effect for {', '.join(sorted(self._unknown_types))}: "
            f"no training event has this type. There is {', '.join(self._known_types)}"
        ]

    def epochs(self, first: int, last: int) -> tf.data.Dataset:
        """Return the batches of the epochs `first` to `last - 1`.

        The order within an epoch depends only on the seed and the epoch number, so a resumed run
        sees the same batches as an uninterrupted one.
        """
        buffer = self.num_timelines
        if not self.is_in_memory:
            buffer = min(buffer, _SHUFFLED_FROM_FILES)

        @tf.autograph.experimental.do_not_convert
        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            timelines = self._training.shuffle(
                buffer, seed=self._seed + number, reshuffle_each_iteration=False
            )
            if self._bucket_by_length:
                groups = timelines.batch(_BATCHES_PER_GROUP * self._batch_size).enumerate()
                timelines = groups.map(
                    lambda group, rows: self._sorted_batches(
                        rows, tf.stack([number + self._seed, group])
                    )
                ).unbatch()
            return timelines.batch(self._batch_size)

        return (
            tf.data.Dataset.range(first, last)
            .flat_map(epoch)
            .map(self._dense, num_parallel_calls=2, deterministic=True)
            .prefetch(2)
        )

    def validation(self) -> tf.data.Dataset | None:
        """Return one pass over the held-out timelines, or None if none are held out."""
        if not self._held_out_buckets:
            return None
        return self._held_out.batch(self._batch_size).map(self._dense)

    @tf.autograph.experimental.do_not_convert
    def _with_events(self, rows: tf.Tensor) -> tf.Tensor:
        """Drop the timelines of which all events are held back."""
        if self._hold_back is None:
            return rows
        parsing = {TIMESTAMP_KEY: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)}
        times = tf.io.parse_example(rows, parsing)[TIMESTAMP_KEY]
        return tf.boolean_mask(rows, self._hold_back.num_kept(times) > 0)

    @tf.autograph.experimental.do_not_convert
    def _is_held_out(self, rows: tf.Tensor) -> tf.Tensor:
        if not self._held_out_buckets:
            return tf.zeros(tf.shape(rows), tf.bool)
        # The bytes of the Example are not suitable: writers may order its features differently.
        keys = [self._spec.query_id, self._spec.candidate_id]
        columns = tf.io.parse_example(rows, parsing_spec(keys, {}))
        indices = tf.concat([columns[key] for key in keys], axis=1)
        content = tf.strings.reduce_join(tf.strings.as_string(indices), axis=1, separator=" ")
        return tf.strings.to_hash_bucket_fast(content, _HASH_BUCKETS) < self._held_out_buckets

    def _sorted_batches(self, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Sort rows by length and shuffle whole batches; an incomplete batch stays last."""
        rows = tf.gather(rows, tf.argsort(tf.strings.length(rows), stable=True))
        whole = tf.size(rows) // self._batch_size
        order = tf.argsort(tf.random.stateless_uniform([whole], seed))
        batches = tf.reshape(rows[: whole * self._batch_size], [whole, self._batch_size])
        shuffled = tf.reshape(tf.gather(batches, order), [-1])
        return tf.concat([shuffled, rows[whole * self._batch_size :]], axis=0)

    @property
    def _weight_parsing(self) -> dict[str, tf.io.RaggedFeature]:
        if self._weight_key is None:
            return {}
        kind = tf.float32 if self._weight_key == RATING_KEY else tf.string
        return {self._weight_key: tf.io.RaggedFeature(kind, row_splits_dtype=tf.int64)}

    # AutoGraph has nothing to convert here, but would take seconds to check that.
    @tf.autograph.experimental.do_not_convert
    def _dense(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Convert serialised Examples `[batch]` to a batch."""
        spec, weight_key = self._spec, self._weight_key
        ids = [spec.query_id, spec.candidate_id]
        parsing = parsing_spec(ids, spec.query_features) | self._weight_parsing
        if self._hold_back is not None:
            parsing |= parsing_spec([TIMESTAMP_KEY], {})
        columns = tf.io.parse_example(rows, parsing)
        if self._hold_back is not None:
            num_kept = self._hold_back.num_kept(columns.pop(TIMESTAMP_KEY))
            for name in filter(None, (spec.candidate_id, weight_key)):
                columns[name] = first_of_rows(columns[name], num_kept)
        batch = {name: pad_indices(columns[name]) for name in ids}
        batch |= dense_features(columns, spec.query_features)
        if weight_key is not None:
            column = columns[weight_key]
            weights = event_weights(column.values, self._event_weights)
            batch[EVENT_WEIGHT_KEY] = column.with_values(weights).to_tensor()
        return batch


def first_of_rows(values: tf.RaggedTensor, number: tf.Tensor) -> tf.RaggedTensor:
    """Return the first `number` `[batch]` values of each row, `[batch, (n)]`."""
    nth = tf.ragged.range(values.row_lengths())
    return tf.ragged.boolean_mask(values, nth < number[:, None])


def event_weights(values: tf.Tensor, weights: Mapping[str, float]) -> tf.Tensor:
    """Return the weight of each event, float32 with the shape of `values`.

    `values` are event types (strings) or ratings (float32). A type without a given weight has the
    weight 1. Ratings between two given ones get interpolated weights, and ratings beyond them get
    the weight of the nearest.
    """
    if values.dtype == tf.string:
        found = tf.ones(tf.shape(values))
        for name, weight in weights.items():
            found = tf.where(values == name, tf.constant(weight, tf.float32), found)
        return found
    known = sorted((np.float32(rating), np.float32(weight)) for rating, weight in weights.items())
    found = tf.fill(tf.shape(values), known[0][1])
    for (left, low), (right, high) in pairwise(known):
        found += tf.clip_by_value((values - left) / (right - left), 0.0, 1.0) * (high - low)
    return found
