"""Read the queries of a bucket with their complete histories from the Examples of all splits.

Ingestion partitions the queries in the same way for every split, so all timelines of a query are in
files with the same number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.interactions.timelines.examples import query_batch
from models.features.spec import (
    EVENT_TYPE_KEY,
    HISTORY_KEY,
    HISTORY_TYPES_KEY,
    IS_TARGET_KEY,
    FeatureSpec,
)
from models.input.raw_examples import padded_inputs, parse_files, parsing_of_features
from models.input.raw_inputs import query_inputs

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Queries:
    """Queries in the order of the lengths of their histories.

    The history of a query is at most two ranges of the events that were read. Its strings are
    copied only when they are asked for, because they would take most of the memory.

    Attributes:
        features: The query IDs and features by name, as ragged rows.
        events: The history and, if the model reads them, the event types, by the name of the input.
            A tensor has the index in `texts` of all events that were read, `[num_events]`.
        texts: The candidates or types of `events`, by the same names.
        starts: First event of each range, `[num_queries, 2]`; the older range is first.
        lengths: Number of events in each range, `[num_queries, 2]`.
    """

    features: Mapping[str, tf.RaggedTensor]
    events: Mapping[str, tf.Tensor]
    texts: Mapping[str, tf.Tensor]
    starts: Indices
    lengths: Indices

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_unknown(self) -> int:
        """The number of queries without events, which are the first ones."""
        return int((self.lengths.sum(axis=1) == 0).sum())

    def slices(self, max_queries: int, max_values: int) -> Iterator[slice]:
        """Yield consecutive slices of limited size, which includes the padding of histories."""
        lengths = self.lengths.sum(axis=1)
        first = 0
        while first < len(lengths):
            last = min(first + max_queries, len(lengths))
            while last > first + 1 and (last - first) * lengths[last - 1] > max_values:
                last = first + (last - first) // 2
            yield slice(first, last)
            first = last

    def histories(self, rows: slice) -> dict[str, tf.RaggedTensor]:
        """Return the history and the event types as ragged rows, oldest first."""
        lengths = self.lengths[rows]
        positions = _ranges(self.starts[rows], lengths)
        return {
            name: tf.RaggedTensor.from_row_lengths(
                tf.gather(self.texts[name], tf.gather(indices, positions)),
                lengths.sum(axis=1),
                validate=False,
            )
            for name, indices in self.events.items()
        }

    def inputs(self, spec: FeatureSpec, rows: slice) -> dict[str, tf.Tensor]:
        """Return the inputs of a signature (`models.input.raw_inputs.query_inputs`)."""
        some = {name: values[rows] for name, values in self.features.items()}
        # The context of a future request is unknown.
        context = {name: tf.fill([rows.stop - rows.start], "") for name in spec.context}
        inputs = {**padded_inputs(some, query_inputs(spec)), **context}
        return {**inputs, **{key: of.to_tensor("") for key, of in self.histories(rows).items()}}


def read_queries(
    files: Sequence[str],
    spec: FeatureSpec,
    requested: pa.Table | None = None,
    features: pa.Table | None = None,
) -> Queries:
    """Return the queries of one bucket.

    Args:
        files: The bucket's files of Examples, in the order of the splits: training first.
        spec: The IDs and features.
        requested: A table whose column of query IDs has the queries to return, some of which may
            have no events. By default, all queries that have events are returned.
        features: A table with features for requested queries that have no events.
    """
    parsing = {
        spec.query_id: tf.io.RaggedFeature(tf.string),
        spec.candidate_id: tf.io.RaggedFeature(tf.string),
        IS_TARGET_KEY: tf.io.RaggedFeature(tf.int64),
        **parsing_of_features(spec.query_features),
    }
    texts = {spec.candidate_id: _Texts()}
    if spec.columns.event_types:
        parsing[EVENT_TYPE_KEY] = tf.io.RaggedFeature(tf.string)
        texts[EVENT_TYPE_KEY] = _Texts()
    examples: list[bytes] = []
    if requested is not None:
        ids = requested[spec.query_id].combine_chunks()
        examples = RecordBatchToExamplesEncoder().encode(query_batch(spec, ids, features))
    without_events = tf.io.parse_example(tf.constant(examples, tf.string), parsing)
    parts, targets = [], []
    for part in chain([without_events], parse_files(files, parsing)):
        targets.append(_sums(part.pop(IS_TARGET_KEY)))
        indices = {
            name: part[name].with_values(of.add(part[name].values)) for name, of in texts.items()
        }
        parts.append({**part, **indices})
    rows = {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}
    num_requested = None if requested is None else len(examples)
    found = {name: of.values for name, of in texts.items()}
    return _merge(rows, found, np.concatenate(targets), spec, num_requested)


class _Texts:
    """The strings of several tensors, each of which is kept about once per tensor."""

    def __init__(self) -> None:
        self._parts: list[tf.Tensor] = []
        self._size = 0

    def add(self, strings: tf.Tensor) -> tf.Tensor:
        """Add the strings of a tensor, and return their indices in `values`."""
        distinct, indices = tf.unique(strings)
        first = self._size
        self._parts.append(distinct)
        self._size += len(distinct)
        return indices + first

    @property
    def values(self) -> tf.Tensor:
        """The strings that were added."""
        return tf.concat(self._parts, axis=0)


def _sums(rows: tf.RaggedTensor) -> Indices:
    # TensorFlow's `reduce_sum` of ragged rows takes twenty times as long.
    before = np.append(0, np.cumsum(rows.values.numpy()))
    return np.diff(before[rows.row_splits.numpy()])


def _merge(
    rows: dict[str, tf.RaggedTensor],
    texts: Mapping[str, tf.Tensor],
    targets: Indices,
    spec: FeatureSpec,
    num_requested: int | None,
) -> Queries:
    """Merge the rows of each query; the first `num_requested` rows have no events.

    `texts` are the strings that rows have as indices, and `targets` the numbers of held-out events,
    `[num_rows]`.
    """
    events = rows.pop(spec.candidate_id)
    flat = {HISTORY_KEY: events.values}
    strings = {HISTORY_KEY: texts[spec.candidate_id]}
    if EVENT_TYPE_KEY in rows:
        flat[HISTORY_TYPES_KEY] = rows.pop(EVENT_TYPE_KEY).values
        strings[HISTORY_TYPES_KEY] = texts[EVENT_TYPE_KEY]
    ids = pa.array(rows[spec.query_id].values.numpy(), pa.binary()).dictionary_encode()
    codes: Indices = np.asarray(ids.indices, np.int64)
    lengths, starts = events.row_lengths().numpy(), events.row_starts().numpy()
    number = len(ids.dictionary)
    # The newest timeline is the last row. It has all events, unless it was cut to the newest ones;
    # then the windows of the training split, which follow one another, have the older events.
    last = np.zeros(number, np.int64)
    last[codes] = np.arange(len(codes))
    in_training = np.where(targets == 0, lengths, 0)
    num_training = _totals(codes, in_training, number)
    older = num_training + _totals(codes, targets, number) - lengths[last]
    older = np.clip(older, 0, num_training)
    first = np.zeros(number, np.int64)
    has_events = np.flatnonzero(in_training)[::-1]
    first[codes[has_events]] = starts[has_events]
    chosen = np.arange(number) if num_requested is None else np.unique(codes[:num_requested])
    sizes = older + lengths[last]
    chosen = chosen[np.argsort(sizes[chosen], kind="stable")]
    newest = last[chosen]
    return Queries(
        {name: tf.gather(values, newest) for name, values in rows.items()},
        flat,
        strings,
        np.stack([first[chosen], starts[newest]], axis=1),
        np.stack([older[chosen], lengths[newest]], axis=1),
    )


def _totals(codes: Indices, values: Any, number: int) -> Indices:
    return np.bincount(codes, values, number).astype(np.int64)


def _ranges(starts: Indices, lengths: Indices) -> Indices:
    """Return the concatenated ranges of positions."""
    starts, lengths = starts.ravel(), lengths.ravel()
    before = np.cumsum(lengths) - lengths
    positions: Indices = np.repeat(starts - before, lengths)
    return positions + np.arange(len(positions))
