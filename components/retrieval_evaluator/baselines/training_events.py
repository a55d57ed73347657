"""The training events as arrays, as many of the newest as counting baselines need."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.features.spec import FeatureSpec
from models.input.raw_examples import read_events

_TIMELINES_A_BATCH = 4096
# Pairs of events are counted: 5 million events are some 50 million pairs, a minute and 2 GB.
MAX_EVENTS = 5_000_000

Indices = npt.NDArray[np.int64]
IndexOf = Callable[[npt.NDArray[np.object_]], Indices]


@dataclass(frozen=True)
class TrainingEvents:
    """Timelines of training events, one after the other, candidates as indices.

    Events whose candidate the catalogue lacks are left out. Timelines stand in the order of their
    newest event, the most recent last, where there are times.

    Attributes:
        num_candidates: Size of the catalogue.
        counts: Of all training events by candidate [num_candidates].
        candidates: Of the kept events, oldest first within a timeline [num_events].
        offsets: Where timelines begin, and their end [num_timelines + 1].
        times: Epoch seconds [num_events]; None where the data has none.
    """

    num_candidates: int
    counts: Indices
    candidates: Indices
    offsets: Indices
    times: Indices | None

    @property
    def num_timelines(self) -> int:
        """How many timelines were kept."""
        return len(self.offsets) - 1

    @property
    def timeline_of(self) -> Indices:
        """The timeline of each event [num_events]."""
        return np.repeat(np.arange(self.num_timelines), np.diff(self.offsets))

    def newest(self, max_events: int) -> "TrainingEvents":
        """Returns the newest timelines that have about `max_events` events together."""
        first = int(np.searchsorted(self.offsets, len(self.candidates) - max_events))
        return self._timelines(np.arange(first, self.num_timelines)) if first > 0 else self

    def by_recency(self) -> "TrainingEvents":
        """Returns the same timelines in the order of their newest event."""
        if self.times is None or not len(self.times):
            return self
        return self._timelines(np.argsort(self.times[self.offsets[1:] - 1], kind="stable"))

    def _timelines(self, chosen: Indices) -> "TrainingEvents":
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        starts = np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        places = starts + np.arange(len(starts))
        times = None if self.times is None else self.times[places]
        candidates = self.candidates[places]
        return TrainingEvents(self.num_candidates, self.counts, candidates, offsets, times)


def read_training_events(
    files: Sequence[str],
    spec: FeatureSpec,
    index_of: IndexOf,
    num_candidates: int,
    asked: Set[bytes],
    max_events: int = MAX_EVENTS,
) -> tuple[TrainingEvents, frozenset[bytes]]:
    """Reads the `train` split.

    Memory is bounded by `max_events`, the catalogue and `asked`, however many timelines there are.
    Where there are more events, the timelines that ended last are kept, or where there are no times
    any of them. Counts are of all.

    Args:
        files: Of the split.
        spec: Ids and features.
        index_of: Index in the catalogue by candidate id; -1 for unknown.
        num_candidates: Size of the catalogue.
        asked: Query ids as bytes that the caller wants to know about.
        max_events: About how many to keep.

    Returns:
        The events, and those of `asked` that have a timeline.
    """
    counts = np.zeros(num_candidates, np.int64)  # one array, which all parts share
    kept = TrainingEvents(
        num_candidates,
        counts,
        np.zeros(0, np.int64),
        np.zeros(1, np.int64),
        np.zeros(0, np.int64) if spec.columns.timestamp else None,
    )
    parts = [kept]
    queries: set[bytes] = set()
    for batch in read_events(files, spec, _TIMELINES_A_BATCH):
        queries.update(asked & set(batch.queries.tolist()))
        indices = index_of(batch.candidates)
        known = indices >= 0
        offsets = np.concatenate(([0], np.cumsum(known)))[batch.offsets]
        offsets = np.unique(offsets)  # a timeline of unknown candidates alone is none
        times = None if batch.times is None else batch.times[known]
        counts += np.bincount(indices[known], minlength=num_candidates)
        parts.append(TrainingEvents(num_candidates, counts, indices[known], offsets, times))
        if sum(len(part.candidates) for part in parts) > 2 * max_events:
            parts = [_joined(parts).by_recency().newest(max_events)]
    return _joined(parts).by_recency().newest(max_events), frozenset(queries)


def _joined(parts: Sequence[TrainingEvents]) -> TrainingEvents:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    times = [part.times for part in parts if part.times is not None]
    return TrainingEvents(
        num_candidates=parts[0].num_candidates,
        counts=parts[0].counts,
        candidates=np.concatenate([part.candidates for part in parts]),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        times=np.concatenate(times) if times else None,
    )
