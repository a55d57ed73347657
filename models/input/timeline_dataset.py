"""Training batches of transformed timelines."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from models.features.spec import RATING_KEY, FeatureSpec, event_weight_key
from models.input.timeline_rows import MEMORY_BYTES, read_rows
from models.input.transformed_features import (
    dense_features,
    pad_indices,
    parsing_spec,
    to_ragged,
)

EVENT_WEIGHT_KEY = "event_weight"
_HASH_BUCKETS = 1_000_000
_BATCHES_PER_GROUP = 16


class TimelineDataset:
    """Batches of the transformed split `train`, in an order determined by the seed.

    A batch is a dictionary of the query ID index `[batch, 1]`, the candidate indices of the events
    `[batch, events]`, dense query features, and event weights `[batch, events]` if there are any.
    A share of the timelines, chosen by a hash of their events, can be held out for validation.

    Args:
        files: GZIP TFRecords of transformed timelines.
        spec: IDs and features.
        batch_size: Timelines per batch.
        validation_fraction: Share of the timelines held out for validation.
        seed: Seed of the order.
        bucket_by_length: Whether to sort the timelines of sixteen batches at a time by length, and
            to shuffle these batches. The timelines of a batch then have similar lengths and little
            padding.
        event_weights: See `TrainingConfig.event_weights`.
        memory_bytes: Maximum size of the parsed timelines in memory; larger data is read from the
            files in each epoch.

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
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._spec = spec
        self._batch_size = batch_size
        self._held_out_buckets = int(validation_fraction * _HASH_BUCKETS)
        self._seed = seed
        self._bucket_by_length = bucket_by_length
        self._event_weights = event_weights or {}
        self._weight_key = event_weight_key(spec.columns, self._event_weights)
        is_held_out = self._is_held_out if self._held_out_buckets else None
        self._source = read_rows(files, self._parse, is_held_out, memory_bytes)
        self.num_timelines = self._source.num_training
        self.steps_per_epoch = -(-self.num_timelines // batch_size)
        # Keras expects None if there is no validation data.
        self.validation_steps = -(-self._source.num_held_out // batch_size) or None
        if self.num_timelines == 0 or (self._held_out_buckets and not self._source.num_held_out):
            raise ValueError(
                "training and validation must each have a timeline, but "
                f"`training.validation_fraction` {validation_fraction:g} leaves "
                f"{self.num_timelines} for training and {self._source.num_held_out} for validation"
            )

    def epochs(self, first: int, last: int) -> tf.data.Dataset:
        """Return the batches of the epochs `first` to `last - 1`.

        The order within an epoch depends only on the seed and the epoch number, so a resumed run
        sees the same batches as an uninterrupted one.
        """
        buffer = max(1, min(self._source.shuffle_buffer, self.num_timelines))

        @tf.autograph.experimental.do_not_convert
        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            timelines = self._source.rows(held_out=False).shuffle(
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
        return self._source.rows(held_out=True).batch(self._batch_size).map(self._dense)

    def _is_held_out(self, columns: Mapping[str, tf.RaggedTensor]) -> tf.Tensor:
        # The bytes of the Example are not suitable: writers may order its features differently.
        keys = [self._spec.query_id, self._spec.candidate_id]
        indices = tf.concat([columns[key] for key in keys], axis=1)
        content = tf.strings.reduce_join(tf.strings.as_string(indices), axis=1, separator=" ")
        return tf.strings.to_hash_bucket_fast(content, _HASH_BUCKETS) < self._held_out_buckets

    def _sorted_batches(self, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Sort rows by length and shuffle whole batches; an incomplete batch stays last."""
        rows = tf.gather(rows, tf.argsort(self._source.sizes(rows), stable=True))
        whole = tf.size(rows) // self._batch_size
        order = tf.argsort(tf.random.stateless_uniform([whole], seed))
        batches = tf.reshape(rows[: whole * self._batch_size], [whole, self._batch_size])
        shuffled = tf.reshape(tf.gather(batches, order), [-1])
        return tf.concat([shuffled, rows[whole * self._batch_size :]], axis=0)

    # AutoGraph has nothing to convert here, but would take seconds to check that.
    @tf.autograph.experimental.do_not_convert
    def _parse(self, serialized: tf.Tensor) -> dict[str, tf.RaggedTensor]:
        """Parse serialised Examples `[batch]` into columns `[batch, (n)]`."""
        spec, weight_key = self._spec, self._weight_key
        parsing = parsing_spec([spec.query_id, spec.candidate_id], spec.query_features)
        if weight_key is not None:
            dtype = tf.float32 if weight_key == RATING_KEY else tf.string
            parsing[weight_key] = tf.io.VarLenFeature(dtype)
        parsed = tf.io.parse_example(serialized, parsing)
        columns = {name: to_ragged(values) for name, values in parsed.items()}
        if weight_key is not None:
            column = columns.pop(weight_key)
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


def event_weights(values: tf.Tensor, weights: Mapping[str, float]) -> tf.Tensor:
    """Return the weight of each event, float32 with the shape of `values`.

    Args:
        values: Event types (strings) or ratings (float32). A type without a given weight has the
            weight 1. Ratings between two given ones get interpolated weights, and ratings beyond
            them get the weight of the nearest.
        weights: Weights by event type or rating.
    """
    if values.dtype == tf.string:
        found = tf.ones(tf.shape(values))
        for name, weight in weights.items():
            found = tf.where(values == name, tf.constant(weight, tf.float32), found)
        return found
    known = sorted((float(rating), weight) for rating, weight in weights.items())
    ratings = np.array([rating for rating, _ in known], np.float32)
    weight_at = np.array([weight for _, weight in known], np.float32)
    found = tf.fill(tf.shape(values), weight_at[0])
    for left, right, low, high in zip(ratings, ratings[1:], weight_at, weight_at[1:], strict=False):
        share = tf.clip_by_value((values - left) / (right - left), 0.0, 1.0)
        found += share * (high - low)
    return found
