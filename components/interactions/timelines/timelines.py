"""Puts the events of a bucket into the order of timelines and drops repeated ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.interactions.sources.columns import TIME_US
from components.interactions.splits.assignment import TRAIN, SplitCodes, timeline_starts
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


Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Timelines:
    """The timelines of one split, as places in the ordered events of a bucket.

    Attributes:
        places: Events of all timelines, one timeline after the other [n].
        is_target: Whether the split holds the event out for prediction [n].
        offsets: Where timelines begin in `places`, and their end [number of timelines + 1].
        num_cut: How many of the queries had more events than fit.
    """

    places: Places
    is_target: npt.NDArray[np.bool_]
    offsets: Places
    num_cut: int

    def __len__(self) -> int:
        return len(self.offsets) - 1


def train_timelines(
    queries: npt.NDArray[np.int64], splits: SplitCodes, max_events: int
) -> Timelines:
    """Cuts each query's training events into windows that end at the newest event.

    Args:
        queries: Of each ordered event [n].
        splits: Of each ordered event [n].
        max_events: Longest window; only the oldest one of a query may be shorter.
    """
    places = np.flatnonzero(splits == TRAIN)
    starts = timeline_starts(queries[places])
    lengths = np.diff(starts, append=len(places))
    ends = np.repeat(starts + lengths, lengths)
    windows = (ends - 1 - np.arange(len(places))) // max_events
    mine = queries[places]
    new = np.concatenate(([True], (mine[1:] != mine[:-1]) | (windows[1:] != windows[:-1])))
    offsets = np.append(np.flatnonzero(new[: len(places)]), len(places))
    return Timelines(
        places, np.zeros(len(places), bool), offsets, int((lengths > max_events).sum())
    )


def held_out_timelines(
    queries: npt.NDArray[np.int64], splits: SplitCodes, split: int, max_events: int
) -> Timelines:
    """Joins each query's events of a later split with the history that precedes the split.

    A timeline that is too long keeps all targets and the newest of its history, as much as a
    model would see of it: held-out events take no place from it, or a query with many of them
    would be asked about without its history.

    Args:
        queries: Of each ordered event [n].
        splits: Of each ordered event [n].
        split: `EVAL` or `TEST`: events of earlier splits are history.
        max_events: Longest history.
    """
    num_queries = int(queries.max(initial=-1)) + 1
    num_targets = np.bincount(queries[splits == split], minlength=num_queries)
    places = np.flatnonzero((splits <= split) & (num_targets[queries] > 0))
    mine = queries[places]
    is_target = splits[places] == split
    starts = timeline_starts(mine)
    lengths = np.diff(starts, append=len(places))
    # History events from each place to the end of its timeline.
    history = np.cumsum(~is_target)
    to_end = np.repeat(history[starts + lengths - 1] if len(starts) else history, lengths)
    newer = to_end - history + ~is_target
    fits = is_target | (newer <= max_events)
    num_cut = len(np.unique(mine[~fits]))
    places, is_target, mine = places[fits], is_target[fits], mine[fits]
    offsets = np.append(timeline_starts(mine), len(places))
    return Timelines(places, is_target, offsets, num_cut)
