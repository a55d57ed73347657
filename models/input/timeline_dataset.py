"""Batches of timelines from what Transform left."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from models.features.dense_features import dense_features, pad_indices, parse_spec, to_ragged
from models.features.spec import RATING_KEY, FeatureSpec
from models.input.event_weights import EVENT_WEIGHT_KEY, event_weights, weight_source
from models.input.timeline_rows import MEMORY_BYTES, find_rows

_HASH_BUCKETS = 1_000_000
_BATCHES_A_GROUP = 16


class TimelineDataset:
    """Gives the transformed `train` split a batch at a time, in an order the seed decides.

    What is small enough is parsed once and held in memory (`models.input.timeline_rows`), else the
    files are read in each epoch. A share of the timelines, chosen by a hash of their events, can
    be held out for validation.

    Args:
        files: Transformed timelines.
        spec: Ids and features.
        batch_size: Timelines in a batch.
        validation_fraction: Share that `validation` has and `epochs` has not.
        seed: Of the order.
        alike_in_length: Whether the timelines of a batch are of about one length: sixteen batches
            at a time are sorted, and then come in any order. What is computed for each place of a
            padded batch is then hardly computed for padding.
        event_weights: As `TrainingConfig.event_weights`.
        memory_bytes: Most that parsed timelines may take in memory.

    Raises:
        ValueError: One side of the validation would be empty.
    """

    def __init__(
        self,
        files: Sequence[str],
        spec: FeatureSpec,
        batch_size: int,
        validation_fraction: float,
        seed: int,
        *,
        alike_in_length: bool = False,
        event_weights: Mapping[str, float] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._spec = spec
        self._batch_size = batch_size
        self._held_out = int(validation_fraction * _HASH_BUCKETS)
        self._seed = seed
        self._alike_in_length = alike_in_length
        self._event_weights = event_weights or {}
        self._weight_source = weight_source(spec.columns, self._event_weights)
        self._source = find_rows(
            files, self._parse, self._is_held_out if self._held_out else None, memory_bytes
        )
        self.num_timelines = self._source.num_fitted
        self.steps_per_epoch = -(-self.num_timelines // batch_size)
        # As Keras wants it: None where there is no validation.
        self.validation_steps = -(-self._source.num_held_out // batch_size) or None
        if self.num_timelines == 0 or (self._held_out and self._source.num_held_out == 0):
            raise ValueError(
                f"`training.validation_fraction` {validation_fraction:g} must leave timelines on "
                f"both sides, got {self.num_timelines} for fitting"
            )

    def epochs(self, first: int, last: int) -> tf.data.Dataset:
        """Returns the batches of the epochs `first` to `last - 1`, one after the other.

        An epoch's order depends on the seed and its own number only, so a resumed run sees what
        the uninterrupted one would have seen.
        """
        buffer = max(1, min(self._source.shuffle_buffer, self.num_timelines))

        @tf.autograph.experimental.do_not_convert
        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            timelines = self._source.rows(held_out=False).shuffle(
                buffer, seed=self._seed + number, reshuffle_each_iteration=False
            )
            if self._alike_in_length:
                groups = timelines.batch(_BATCHES_A_GROUP * self._batch_size).enumerate()
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
        """Returns one pass over the held-out timelines, or None where none are."""
        if not self._held_out:
            return None
        return self._source.rows(held_out=True).batch(self._batch_size).map(self._dense)

    def _is_held_out(self, columns: Mapping[str, tf.RaggedTensor]) -> tf.Tensor:
        # Not of the bytes: the order of an Example's features in them is up to the writer.
        keys = [self._spec.query_id, self._spec.candidate_id]
        indices = tf.concat([columns[key] for key in keys], axis=1)
        content = tf.strings.reduce_join(tf.strings.as_string(indices), axis=1, separator=" ")
        return tf.strings.to_hash_bucket_fast(content, _HASH_BUCKETS) < self._held_out

    def _sorted_batches(self, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Sorts by length, then shuffles whole batches; what fills no batch stays at the end."""
        rows = tf.gather(rows, tf.argsort(self._source.sizes(rows), stable=True))
        whole = tf.size(rows) // self._batch_size
        order = tf.argsort(tf.random.stateless_uniform([whole], seed))
        batches = tf.reshape(rows[: whole * self._batch_size], [whole, self._batch_size])
        shuffled = tf.reshape(tf.gather(batches, order), [-1])
        return tf.concat([shuffled, rows[whole * self._batch_size :]], axis=0)

    # AutoGraph finds nothing to convert here and takes seconds to find it.
    @tf.autograph.experimental.do_not_convert
    def _parse(self, serialized: tf.Tensor) -> dict[str, tf.RaggedTensor]:
        """Parses `[batch]` Examples to `[batch, (n)]` each."""
        spec, source = self._spec, self._weight_source
        parsing = parse_spec([spec.query_id, spec.candidate_id], spec.query_features)
        if source is not None:
            dtype = tf.float32 if source == RATING_KEY else tf.string
            parsing[source] = tf.io.VarLenFeature(dtype)
        parsed = tf.io.parse_example(serialized, parsing)
        columns = {name: to_ragged(values) for name, values in parsed.items()}
        if source is not None:
            # One value an event, so the rows of both are the same events.
            column = columns.pop(source)
            columns[EVENT_WEIGHT_KEY] = column.with_values(
                event_weights(column.values, self._event_weights)
            )
        return {
            name: tf.cast(column, tf.int32) if column.dtype == tf.int64 else column
            for name, column in columns.items()
        }

    @tf.autograph.experimental.do_not_convert
    def _dense(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = self._spec
        columns = self._source.columns(rows)
        batch = {
            spec.query_id: pad_indices(columns[spec.query_id]),
            spec.candidate_id: pad_indices(columns[spec.candidate_id]),
            **dense_features(columns, spec.query_features),
        }
        if EVENT_WEIGHT_KEY in columns:
            batch[EVENT_WEIGHT_KEY] = columns[EVENT_WEIGHT_KEY].to_tensor()
        return batch
