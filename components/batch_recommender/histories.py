"""Read the queries of a bucket with their complete histories from the Examples of all splits.

Ingestion partitions the queries in the same way for every split, so all timelines of a query are in
files with the same number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from models.input.raw_examples import padded_inputs, parse_file, parsing_of_features
from models.input.raw_inputs import query_inputs

Rows = dict[str, tf.RaggedTensor]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Queries:
    """Queries in the order of the lengths of their histories.

    `features` also has the query IDs, all as ragged rows; `history` has the candidate IDs of all
    events, oldest first, and `types` their types, if the model reads them. The first `num_unknown`
    queries have no events.
    """

    features: Mapping[str, tf.RaggedTensor]
    history: tf.RaggedTensor
    num_unknown: int
    types: tf.RaggedTensor | None = None

    def __len__(self) -> int:
        return int(self.history.nrows())

    def slices(self, max_queries: int, max_values: int) -> Iterator[slice]:
        """Yield consecutive slices of limited size, which includes the padding of histories."""
        lengths = self.history.row_lengths().numpy()
        first = 0
        while first < len(lengths):
            last = min(first + max_queries, len(lengths))
            while last > first + 1 and (last - first) * lengths[last - 1] > max_values:
                last = first + (last - first) // 2
            yield slice(first, last)
            first = last

    def inputs(self, spec: FeatureSpec, rows: slice) -> dict[str, tf.Tensor]:
        """Return the inputs of a signature (`models.input.raw_inputs.query_inputs`)."""
        some = {name: values[rows] for name, values in self.features.items()}
        # The context of a future request is unknown.
        context = {name: tf.fill([rows.stop - rows.start], "") for name in spec.context}
        inputs = {**padded_inputs(some, query_inputs(spec)), **context}
        if self.types is not None:
            inputs[HISTORY_TYPES_KEY] = self.types[rows].to_tensor("")
        return {**inputs, HISTORY_KEY: self.history[rows].to_tensor("")}


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
    if spec.columns.event_types:
        parsing[EVENT_TYPE_KEY] = tf.io.RaggedFeature(tf.string)
    parts: list[Rows] = []
    num_requested = 0
    if requested is not None:
        ids = requested[spec.query_id].combine_chunks()
        num_requested = len(ids)
        examples = RecordBatchToExamplesEncoder().encode(query_batch(spec, ids, features))
        parts.append(tf.io.parse_example(tf.constant(examples, tf.string), parsing))
    parts += [parse_file(file, parsing) for file in files]
    rows = {name: tf.concat([part[name] for part in parts], axis=0) for name in parsing}
    return _merge(rows, spec, num_requested if requested is not None else None)


def _merge(rows: Rows, spec: FeatureSpec, num_requested: int | None) -> Queries:
    """Merge the rows of each query; the first `num_requested` rows have no events."""
    events, is_target = rows.pop(spec.candidate_id), rows.pop(IS_TARGET_KEY)
    types = rows.pop(EVENT_TYPE_KEY, None)
    ids = pa.array(rows[spec.query_id].values.numpy(), pa.binary()).dictionary_encode()
    codes: Indices = np.asarray(ids.indices, np.int64)
    lengths, starts = events.row_lengths().numpy(), events.row_starts().numpy()
    targets = tf.reduce_sum(is_target, axis=1).numpy()
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
    positions = _ranges(
        np.stack([first[chosen], starts[newest]], axis=1),
        np.stack([older[chosen], lengths[newest]], axis=1),
    )
    history, event_types = (
        None
        if of_events is None
        else tf.RaggedTensor.from_row_lengths(
            tf.gather(of_events.values, positions), sizes[chosen], validate=False
        )
        for of_events in (events, types)
    )
    features = {name: tf.gather(values, newest) for name, values in rows.items()}
    return Queries(features, history, int((sizes[chosen] == 0).sum()), event_types)


def _totals(codes: Indices, values: Any, number: int) -> Indices:
    return np.bincount(codes, values, number).astype(np.int64)


def _ranges(starts: Indices, lengths: Indices) -> Indices:
    """Return the concatenated ranges of positions."""
    starts, lengths = starts.ravel(), lengths.ravel()
    before = np.cumsum(lengths) - lengths
    positions: Indices = np.repeat(starts - before, lengths)
    return positions + np.arange(len(positions))
