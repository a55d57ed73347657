"""Puts the events of a bucket into the order of timelines and drops repeated ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.interactions.source_columns import TIME_US
from components.interactions.stable_hash import hash_strings

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OrderedEvents:
    """Events of a bucket: timelines one after the other, oldest event first.

    Attributes:
        table: Dictionary-encoded ids, then time, rating and event type where declared.
        num_duplicates: How many repeated events were dropped.
    """

    table: pa.Table
    num_duplicates: int


def order_events(
    events: pa.Table, query_id: str, candidate_id: str, *, drop_duplicates: bool
) -> OrderedEvents:
    """Groups events by query, in the order of the queries' hashes, and sorts each group by time.

    Events at the same time, and all events where there is no time, keep the order of the input.
    Events are duplicates when query, candidate and time are equal; the first is kept. Without
    times none is: that a query saw a candidate twice is then a fact like any other.

    Args:
        events: In the order of the input.
        query_id: Key of the query id.
        candidate_id: Key of the candidate id.
        drop_duplicates: Whether to drop duplicates.
    """
    queries = _encode(events[query_id])
    candidates = _encode(events[candidate_id])
    # The order of hashes is stable under any order of files, and shuffles the training split.
    ranks = np.argsort(np.argsort(hash_strings(queries.dictionary), kind="stable"))
    query_ranks = ranks[_codes(queries)]
    keep = [name for name in events.schema.names if not name.startswith("#") or name == TIME_US]
    table = events.select(keep)
    table = table.set_column(keep.index(query_id), query_id, queries)
    table = table.set_column(keep.index(candidate_id), candidate_id, candidates)
    if TIME_US not in keep:
        order = np.argsort(query_ranks, kind="stable")
        return OrderedEvents(table.take(pa.array(order)), 0)
    times = events[TIME_US].to_numpy()
    order = np.lexsort((times, query_ranks))
    if not drop_duplicates:
        return OrderedEvents(table.take(pa.array(order)), 0)
    repeated = _repeated(query_ranks[order], times[order], _codes(candidates)[order])
    kept = order[~repeated]
    return OrderedEvents(table.take(pa.array(kept)), len(order) - len(kept))


def _encode(column: pa.ChunkedArray) -> Any:
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded


def _codes(encoded: Any) -> Codes:
    return np.asarray(encoded.indices, dtype=np.int64)


def _repeated(queries: Codes, times: Codes, candidates: Codes) -> npt.NDArray[np.bool_]:
    """Marks all but the first of equal events; events come sorted by query, then time."""
    repeated = np.zeros(len(times), bool)
    tied = (queries[1:] == queries[:-1]) & (times[1:] == times[:-1])
    in_tie = np.zeros(len(times), bool)
    in_tie[1:] |= tied
    in_tie[:-1] |= tied
    places = np.flatnonzero(in_tie)
    # Only events that share a moment can be equal: sort those by candidate, which keeps the order
    # of appearance among equals.
    moments = np.cumsum(np.concatenate(([True], ~tied)))[places] if len(places) else places
    order = np.lexsort((candidates[places], moments))
    places, moments = places[order], moments[order]
    equal = (moments[1:] == moments[:-1]) & (np.diff(candidates[places]) == 0)
    repeated[places[1:][equal]] = True
    return repeated
