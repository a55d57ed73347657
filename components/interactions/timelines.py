"""Chooses the events of each split's timelines and cuts what is too long."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.interactions.splits import TRAIN, SplitCodes, timeline_starts

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
