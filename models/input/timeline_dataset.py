"""Training batches of transformed timelines."""

from collections.abc import Sequence
from functools import partial

import tensorflow as tf

from models.features.spec import (
    EVENT_TYPE_KEY,
    HISTORY_TYPES_KEY,
    TIMESTAMP_KEY,
    EventWeights,
    FeatureSpec,
)
from models.input.event_weights import event_weights, weight_parsing
from models.input.hold_back import HoldBack
from models.input.transformed_features import (
    dense_features,
    pad_indices,
    parsing_spec,
    type_indices,
)

EVENT_WEIGHT_KEY = "event_weight"
# Default limit of the size of timelines in memory; enough for about 50 million events.
MEMORY_BYTES = 256 << 20
_READ_BYTES = 8 << 20
_ROWS_PER_BLOCK = 4096
_HASH_BUCKETS = 1_000_000
# Maximum number of events of a timeline that are held out with `holds_out_newest`.
_MOST_NEWEST = 5
# Without a `validation_fraction`: more timelines would not change which epoch is the best, and the
# training would miss them. With fewer, chance would choose.
_USUAL_SHARE, _MOST_HELD_OUT, _FEWEST_HELD_OUT = 0.05, 500, 100
# Number of timelines to shuffle at a time if they are not in memory.
_SHUFFLED_FROM_FILES = 100_000


class TimelineDataset:
    """Batches of the transformed split `train`, in an order determined by the seed.

    A batch is a dictionary of the query ID index `[batch, 1]`, the candidate indices of the events
    `[batch, events]`, dense query features, and if there are any, event weights and indices of
    event types and of the context `[batch, events]`. If candidates have times of availability, it
    also has those of the events.
    `validation_fraction` of the timelines, chosen by a hash of their events, are held out; None
    holds out 5%, but at most 500 timelines, and none if there would be fewer than 100. With
    `holds_out_newest`, training misses only the newest quarter of the events of these timelines,
    at most five, and in validation batches, all others have the weight 0.

    Args:
        files: GZIP TFRecords of transformed timelines.
        weights: Weights of the events in the loss.
        hold_back: Rule that leaves out events of timelines, or None.
        memory_bytes: Maximum size of the timelines in memory; larger data is read from the files in
            each epoch.

    Attributes:
        warnings: Sentences about weights that have no effect on these timelines.

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
        validation_fraction: float | None,
        seed: int,
        *,
        weights: EventWeights | None = None,
        hold_back: HoldBack | None = None,
        holds_out_newest: bool = False,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._spec = spec
        self._batch_size = batch_size
        self._seed = seed
        self._weights = weights or EventWeights()
        self._hold_back = hold_back
        self._holds_out_newest = holds_out_newest
        self._used_weights: set[float] = set()
        self._unknown_types, self._known_types = set(self._weights.types), [""]
        rows = (
            tf.data.TFRecordDataset(files, compression_type="GZIP", buffer_size=_READ_BYTES)
            .batch(_ROWS_PER_BLOCK)
            .map(self._with_events)
        )
        share = _usual_share(rows) if validation_fraction is None else validation_fraction
        self._held_out_buckets = int(share * _HASH_BUCKETS)
        self._read(rows, memory_bytes)
        self.warnings = self._weights_without_effect()
        if self.num_timelines == 0 or (self._held_out_buckets and not self._num_held_out):
            raise ValueError(
                "training and validation must each have a timeline, but "
                f"`training.validation_fraction` {share:g} leaves "
                f"{self.num_timelines} for training and {self._num_held_out} for validation"
            )
        self.steps_per_epoch = -(-self.num_timelines // batch_size)
        # Keras expects None if there is no validation data.
        self.validation_steps = -(-self._num_held_out // batch_size) or None

    def _read(self, rows: tf.data.Dataset, memory_bytes: int) -> None:
        """Count the timelines, and keep them in memory if they are not too large."""
        blocks = rows.map(lambda rows: (rows, self._is_held_out(rows))).prefetch(1)
        nothing = tf.constant([], tf.string), tf.constant([], tf.bool)
        counts, kept, num_bytes = [0, 0], ([nothing], [nothing]), 0
        for rows, is_held_out in blocks:
            num_bytes += int(tf.reduce_sum(tf.strings.length(rows)))
            if self._weights.keys:
                self._count_weights(rows)
            for side, select in enumerate((self._fitted, _held_out)):
                chosen = select(rows, is_held_out)
                counts[side] += len(chosen[0])
                if num_bytes <= memory_bytes:
                    kept[side].append(chosen)
        self.num_timelines, self._num_held_out = counts
        self.is_in_memory = num_bytes <= memory_bytes
        self._training, self._validation = (
            tf.data.Dataset.from_tensor_slices(
                tuple(tf.concat(column, axis=0) for column in zip(*kept[side], strict=True))
            )
            if self.is_in_memory
            else blocks.map(select).unbatch()
            for side, select in enumerate((self._fitted, _held_out))
        )

    def _fitted(self, rows: tf.Tensor, is_held_out: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Select the timelines that training uses at least some events of."""
        is_fitted = tf.ones_like(is_held_out) if self._holds_out_newest else ~is_held_out
        return tf.boolean_mask(rows, is_fitted), tf.boolean_mask(is_held_out, is_fitted)

    def _count_weights(self, rows: tf.Tensor) -> None:
        parsed = tf.io.parse_example(rows, weight_parsing(self._weights))
        if len(self._used_weights) < 2:
            weights = tf.unique(event_weights(parsed, self._weights))[0]
            self._used_weights |= set(weights.numpy().tolist())
        if EVENT_TYPE_KEY in parsed and self._unknown_types:
            found = tf.unique(parsed[EVENT_TYPE_KEY].values)[0].numpy().tolist()
            types = [value.decode() for value in found]
            self._unknown_types.difference_update(types)
            self._known_types = types[:5]

    def _weights_without_effect(self) -> list[str]:
        if len(self._used_weights) == 1:
            return [
                "`events.types` and `events.rating_weights` have no effect: every training event "
                f"has the weight {min(self._used_weights):g}"
            ]
        if EVENT_TYPE_KEY not in self._weights.keys or not self._unknown_types:
            return []
        return [
            f"`events.types` has no effect for {', '.join(sorted(self._unknown_types))}: "
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
        return self._validation.batch(self._batch_size).map(partial(self._dense, validates=True))

    @tf.autograph.experimental.do_not_convert
    def _with_events(self, rows: tf.Tensor) -> tf.Tensor:
        """Drop the timelines of which all events are held back."""
        if self._hold_back is None:
            return rows
        keys = [TIMESTAMP_KEY, self._spec.candidate_id]
        columns = tf.io.parse_example(rows, parsing_spec(keys, {}))
        is_kept = self._hold_back.is_kept(*(columns[key] for key in keys))
        return tf.boolean_mask(rows, tf.reduce_any(is_kept, axis=1))

    @tf.autograph.experimental.do_not_convert
    def _is_held_out(self, rows: tf.Tensor) -> tf.Tensor:
        if not self._held_out_buckets:
            return tf.zeros(tf.shape(rows), tf.bool)
        # The bytes of the Example are not suitable: writers may order its features differently.
        keys = [self._spec.query_id, self._spec.candidate_id]
        columns = tf.io.parse_example(rows, parsing_spec(keys, {}))
        indices = tf.concat([columns[key] for key in keys], axis=1)
        content = tf.strings.reduce_join(tf.strings.as_string(indices), axis=1, separator=" ")
        buckets = tf.strings.to_hash_bucket_fast(content, _HASH_BUCKETS)
        is_held_out = buckets < self._held_out_buckets
        if self._holds_out_newest:
            # A single event has nothing before it to predict it from.
            is_held_out &= columns[self._spec.candidate_id].row_lengths() > 1
        return is_held_out

    # AutoGraph has nothing to convert here, but would take seconds to check that.
    @tf.autograph.experimental.do_not_convert
    def _dense(
        self, rows: tf.Tensor, is_held_out: tf.Tensor, *, validates: bool = False
    ) -> dict[str, tf.Tensor]:
        """Convert serialised Examples `[batch]`, and whether they are held out, to a batch."""
        spec, weights = self._spec, self._weights
        ids = [spec.query_id, spec.candidate_id, *spec.context]
        parsing = parsing_spec(ids, spec.query_features) | weight_parsing(weights)
        types = (EVENT_TYPE_KEY,) if spec.columns.event_types else ()
        parsing |= {
            name: tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64) for name in types
        }
        times = (TIMESTAMP_KEY,) if spec.availability else ()
        if self._hold_back is not None or times:
            parsing |= parsing_spec([TIMESTAMP_KEY], {})
        columns = tf.io.parse_example(rows, parsing)
        per_event = {*ids[1:], *weights.keys, *types, *times}

        def keep(is_kept: tf.RaggedTensor) -> None:
            for name in per_event:
                columns[name] = tf.ragged.boolean_mask(columns[name], is_kept)

        if self._hold_back is not None:
            keep(self._hold_back.is_kept(columns[TIMESTAMP_KEY], columns[spec.candidate_id]))
        if self._holds_out_newest and not validates:
            keep(~_is_newest(columns[spec.candidate_id], is_held_out))
        batch = {name: pad_indices(columns[name]) for name in ids}
        batch |= dense_features(columns, spec.query_features)
        events = columns[spec.candidate_id]
        if types:
            indices = type_indices(columns[EVENT_TYPE_KEY].values, spec)
            batch[HISTORY_TYPES_KEY] = events.with_values(indices).to_tensor(-1)
        batch |= {name: columns[name].to_tensor() for name in times}
        of_events = event_weights(columns, weights) if weights.keys else None
        if self._holds_out_newest and validates:
            is_newest = tf.cast(_is_newest(events, is_held_out).values, tf.float32)
            of_events = is_newest if of_events is None else of_events * is_newest
        if of_events is not None:
            batch[EVENT_WEIGHT_KEY] = events.with_values(of_events).to_tensor()
        return batch


def num_newest(lengths: tf.Tensor) -> tf.Tensor:
    """Return how many of the newest events are held out of timelines of these lengths."""
    return tf.clip_by_value(lengths // 4, tf.minimum(lengths // 2, 1), _MOST_NEWEST)


def _is_newest(events: tf.RaggedTensor, is_held_out: tf.Tensor) -> tf.RaggedTensor:
    """Return a mask of the newest events of held-out timelines, `[batch, (events)]`."""
    lengths = events.row_lengths()
    first = tf.where(is_held_out, lengths - num_newest(lengths), lengths)
    is_newest = tf.ragged.range(lengths).values >= tf.gather(first, events.value_rowids())
    return events.with_values(is_newest)


def _held_out(rows: tf.Tensor, is_held_out: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.boolean_mask(rows, is_held_out), tf.boolean_mask(is_held_out, is_held_out)


def _usual_share(blocks: tf.data.Dataset) -> float:
    """Return the share of the timelines to hold out, 0 if they would be too few to measure on."""
    num_timelines = sum(len(rows) for rows in blocks)
    held_out = min(_USUAL_SHARE * num_timelines, _MOST_HELD_OUT)
    return held_out / num_timelines if held_out >= _FEWEST_HELD_OUT else 0.0
