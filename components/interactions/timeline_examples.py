"""Timelines as record batches of lists, ready to be encoded as Examples."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.feature_lists import (
    empty_lists,
    feature_lists,
    single_lists,
    value_type,
)
from components.interactions.source_columns import TIME_US
from components.interactions.timelines import Places, Timelines
from models.features.spec import (
    EVENT_TYPE_KEY,
    IS_TARGET_KEY,
    RATING_KEY,
    TIMESTAMP_KEY,
    FeatureSpec,
)

_US_PER_S = 10**6


class TimelineEncoder:
    """Turns the timelines of one bucket into record batches."""

    def __init__(self, spec: FeatureSpec, events: pa.Table, queries: pa.Table | None):
        """Joins the bucket's queries with their features.

        Args:
            spec: Ids and features.
            events: As `order_events` leaves them.
            queries: One row for each query that has features.
        """
        self._spec = spec
        self._queries = events[spec.query_id].combine_chunks()
        self._candidates = events[spec.candidate_id].combine_chunks()
        self._times = events[TIME_US].to_numpy() // _US_PER_S if spec.columns.timestamp else None
        self._ratings = events[RATING_KEY].combine_chunks() if spec.columns.rating else None
        self._types = events[EVENT_TYPE_KEY].combine_chunks() if spec.columns.event_type else None
        ids = self._queries.dictionary
        if queries is None:
            found = np.full(len(ids), -1)
        else:
            known = queries[spec.query_id].combine_chunks()
            found = pc.index_in(ids, value_set=known).fill_null(-1).to_numpy(zero_copy_only=False)
        self._features = feature_lists(queries, spec.query_features, found.astype(np.int64))
        self.num_without_features = int((found < 0).sum())

    def batches(self, timelines: Timelines, batch_events: int) -> Iterator[pa.RecordBatch]:
        """Yields batches of whole timelines with about `batch_events` events each."""
        first = 0
        while first < len(timelines):
            limit = timelines.offsets[first] + batch_events
            last = max(first + 1, int(np.searchsorted(timelines.offsets, limit, "right")) - 1)
            yield self._batch(timelines, first, last)
            first = last

    def _batch(self, timelines: Timelines, first: int, last: int) -> pa.RecordBatch:
        spec = self._spec
        offsets = timelines.offsets[first : last + 1]
        places = timelines.places[offsets[0] : offsets[-1]]
        bounds = pa.array((offsets - offsets[0]).astype(np.int32))
        owners = self._queries.indices.take(pa.array(timelines.places[offsets[:-1]]))
        columns = {spec.query_id: single_lists(_values(self._queries.dictionary, owners))}
        for name, lists in self._features.items():
            columns[name] = _compact(lists.take(owners))
        seen = self._candidates.indices.take(pa.array(places))
        columns[spec.candidate_id] = _lists(bounds, _values(self._candidates.dictionary, seen))
        for name, feature in spec.candidate_features.items():
            columns[name] = empty_lists(value_type(feature), len(owners))
        if self._times is not None:
            columns[TIMESTAMP_KEY] = _lists(bounds, pa.array(self._times[places]))
        if self._ratings is not None:
            columns[RATING_KEY] = _lists(bounds, self._ratings.take(pa.array(places)))
        if self._types is not None:
            taken = self._types.take(pa.array(places)).cast(pa.binary())
            columns[EVENT_TYPE_KEY] = _lists(bounds, taken)
        targets = timelines.is_target[offsets[0] : offsets[-1]]
        columns[IS_TARGET_KEY] = _lists(bounds, pa.array(targets.astype(np.int64)))
        return _batch(columns)


def candidate_batches(
    spec: FeatureSpec, ids: Any, catalogue: pa.Table | None, places: Places, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yields the candidates in batches with the same columns as timelines.

    Args:
        spec: Ids and features.
        ids: Of the candidates, strings [n].
        catalogue: Rows with features.
        places: Of each candidate in `catalogue`; negative: it has no features [n].
        batch_rows: Candidates in a batch.
    """
    for first in range(0, len(ids), batch_rows):
        some = ids[first : first + batch_rows]
        count = len(some)
        columns = {spec.query_id: empty_lists(pa.binary(), count)}
        for name, feature in spec.query_features.items():
            columns[name] = empty_lists(value_type(feature), count)
        columns[spec.candidate_id] = single_lists(some.cast(pa.binary()))
        columns |= feature_lists(
            catalogue, spec.candidate_features, places[first : first + batch_rows]
        )
        if spec.columns.timestamp:
            columns[TIMESTAMP_KEY] = empty_lists(pa.int64(), count)
        if spec.columns.rating:
            columns[RATING_KEY] = empty_lists(pa.float32(), count)
        if spec.columns.event_type:
            columns[EVENT_TYPE_KEY] = empty_lists(pa.binary(), count)
        columns[IS_TARGET_KEY] = empty_lists(pa.int64(), count)
        yield _batch(columns)


def _batch(columns: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def _values(dictionary: Any, codes: Any) -> Any:
    return dictionary.take(codes).cast(pa.binary())


def _lists(bounds: Any, values: Any) -> Any:
    return pa.ListArray.from_arrays(bounds, values)


def _compact(lists: Any) -> Any:
    """Rebuilds lists so that their values begin at zero and hold nothing else."""
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return _lists(pa.array(bounds), lists.flatten())
