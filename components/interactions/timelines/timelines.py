"""Order the events of a bucket by query and time, and choose the events of each timeline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.sources.columns import TIME_US
from components.interactions.splits.assignment import TRAIN, SplitCodes, timeline_starts
from components.interactions.stable_hash import hash_strings
from models.features.spec import EVENT_TYPE_KEY

Codes = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]

_US_PER_S = 1e6


@dataclass(frozen=True)
class Timelines:
    """The timelines of one split, as positions in the ordered events of a bucket [n].

    `is_target` is true for events that the split holds out, not for history and training [n].
    `offsets` is the start of each timeline in `positions`, and the end of the last one. `num_cut`
    counts the queries with more events than fit into a timeline.
    """

    positions: Positions
    is_target: npt.NDArray[np.bool_]
    offsets: Positions
    num_cut: int

    def __len__(self) -> int:
        return len(self.offsets) - 1


def order_events(
    events: pa.Table, query_id: str, candidate_id: str, *, drop_duplicates: bool
) -> tuple[pa.Table, int]:
    """Group events by query, in the order of the queries' hashes, and sort each group by time.

    Also return the number of dropped duplicates.

    Events at the same time, and all events without times, keep the order of the input. Events with
    the same query, candidate and time are duplicates; `drop_duplicates` keeps the first of them.
    Without times, all events are kept, because a query may have a candidate in several events.
    """
    queries = events[query_id].combine_chunks().dictionary_encode()
    candidates = events[candidate_id].combine_chunks().dictionary_encode()
    # The order of hashes is independent of the order of files, and shuffles the training split.
    ranks = np.argsort(np.argsort(hash_strings(queries.dictionary), kind="stable"))
    query_ranks = ranks[np.asarray(queries.indices)]
    keep = [name for name in events.schema.names if not name.startswith("#") or name == TIME_US]
    table = events.select(keep)
    table = table.set_column(keep.index(query_id), query_id, queries)
    table = table.set_column(keep.index(candidate_id), candidate_id, candidates)
    times = events[TIME_US].to_numpy() if TIME_US in keep else np.zeros(len(events), np.int64)
    order = np.lexsort((times, query_ranks))
    kept = order
    if drop_duplicates and TIME_US in keep:
        codes = np.asarray(candidates.indices)
        kept = order[~_repeated(query_ranks[order], times[order], codes[order])]
    return table.take(pa.array(kept)), len(order) - len(kept)


def collapse_funnels(
    events: pa.Table, query_id: str, candidate_id: str, types: Sequence[str], within_s: float
) -> tuple[pa.Table, int]:
    """Make each funnel, such as view, cart and purchase of one candidate, one event.

    Also return the number of removed events. Events of the same query and candidate are one funnel
    if each is at most `within_s` seconds after the one before. Its first event of the highest type
    is kept. `types` are in ascending order; other types are the lowest. `events` are a result of
    `order_events`.
    """
    queries, candidates = (
        np.asarray(events[name].combine_chunks().indices) for name in (query_id, candidate_id)
    )
    times = events[TIME_US].to_numpy()
    names = events[EVENT_TYPE_KEY].combine_chunks().cast(pa.string())
    found = pc.index_in(names, value_set=pa.array(types, pa.string())).fill_null(-1)
    order = np.lexsort((times, candidates, queries))
    is_same = (np.diff(queries[order]) == 0) & (np.diff(candidates[order]) == 0)
    is_same &= np.diff(times[order]) <= within_s * _US_PER_S
    funnels = np.cumsum(~np.append(False, is_same)[: len(order)])
    best = np.lexsort((-found.to_numpy()[order], funnels))
    firsts = np.flatnonzero(np.diff(funnels[best], prepend=0))
    kept = np.sort(order[best[firsts]])
    return events.take(pa.array(kept)), len(order) - len(kept)


def train_timelines(queries: Codes, splits: SplitCodes, max_events: int) -> Timelines:
    """Divide each query's training events into timelines, starting from the newest event."""
    positions = np.flatnonzero(splits == TRAIN)
    mine = queries[positions]
    starts = timeline_starts(mine)
    lengths = np.diff(starts, append=len(positions))
    ends = np.repeat(starts + lengths, lengths)
    windows = (ends - 1 - np.arange(len(positions))) // max_events
    new = np.concatenate(([True], (mine[1:] != mine[:-1]) | (windows[1:] != windows[:-1])))
    offsets = np.append(np.flatnonzero(new[: len(positions)]), len(positions))
    num_cut = int((lengths > max_events).sum())
    return Timelines(positions, np.zeros(len(positions), bool), offsets, num_cut)


def held_out_timelines(
    queries: Codes, splits: SplitCodes, split: int, max_events: int
) -> Timelines:
    """Return one timeline per query: its events in a held-out split, and the history before them.

    A timeline that is too long keeps all targets and the newest `max_events` of its history.
    Targets do not count towards `max_events`, so a query with many targets keeps its history.
    """
    num_queries = int(queries.max(initial=-1)) + 1
    num_targets = np.bincount(queries[splits == split], minlength=num_queries)
    positions = np.flatnonzero((splits <= split) & (num_targets[queries] > 0))
    mine = queries[positions]
    is_target = splits[positions] == split
    starts = timeline_starts(mine)
    lengths = np.diff(starts, append=len(positions))
    # Number of history events from each event to the end of its timeline.
    history = np.cumsum(~is_target)
    to_end = np.repeat(history[starts + lengths - 1] if len(starts) else history, lengths)
    newer = to_end - history + ~is_target
    fits = is_target | (newer <= max_events)
    num_cut = len(np.unique(mine[~fits]))
    positions, is_target, mine = positions[fits], is_target[fits], mine[fits]
    offsets = np.append(timeline_starts(mine), len(positions))
    return Timelines(positions, is_target, offsets, num_cut)


def _repeated(queries: Codes, times: Codes, candidates: Codes) -> npt.NDArray[np.bool_]:
    """Return a mask of all but the first of equal events; the input is sorted by query and time."""
    repeated = np.zeros(len(times), bool)
    # Only events at the same time can be equal. `groups` numbers the queries' distinct times.
    tied = (queries[1:] == queries[:-1]) & (times[1:] == times[:-1])
    positions = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
    groups = np.cumsum(np.append(True, ~tied))
    keys = groups[positions] * (candidates.max(initial=0) + 1) + candidates[positions]
    _, firsts = np.unique(keys, return_index=True)
    repeated[np.delete(positions, firsts)] = True
    return repeated
