"""The training events of the baselines: arrays of the newest timelines."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.retrieval_evaluator.baselines.cooccurrence_scores import Ints, expand
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_events

_TIMELINES_PER_BATCH = 4096
# Baselines count pairs: 5 million events give about 50 million pairs, which take a minute and 2 GB.
MAX_EVENTS = 5_000_000

IndexOf = Callable[[npt.NDArray[np.object_]], Ints]


@dataclass(frozen=True)
class TrainingEvents:
    """Timelines of training events, concatenated, with candidates as indices.

    Events of candidates outside the catalogue are left out. If there are timestamps, timelines are
    sorted by their newest event, the most recent one last.

    Attributes:
        counts: Number of training events of each candidate `[num_candidates]`, including those
            beyond the limit of kept events.
        candidates: Candidates of the kept events, oldest first within a timeline `[num_events]`.
        offsets: Start of each timeline in `candidates`, then the end `[num_timelines + 1]`.
        times: Time of each kept event in epoch seconds `[num_events]`; None without timestamps.
    """

    num_candidates: int
    counts: Ints
    candidates: Ints
    offsets: Ints
    times: Ints | None

    @property
    def num_timelines(self) -> int:
        """The number of timelines that were kept."""
        return len(self.offsets) - 1

    @property
    def timeline_of(self) -> Ints:
        """The timeline of each event `[num_events]`."""
        return np.repeat(np.arange(self.num_timelines), np.diff(self.offsets))

    def newest(self, max_events: int) -> "TrainingEvents":
        """Return the newest timelines, with about `max_events` events in total."""
        first = int(np.searchsorted(self.offsets, len(self.candidates) - max_events))
        return self._timelines(np.arange(first, self.num_timelines)) if first > 0 else self

    def by_recency(self) -> "TrainingEvents":
        """Return the same timelines, sorted by their newest event."""
        if self.times is None or not len(self.times):
            return self
        return self._timelines(np.argsort(self.times[self.offsets[1:] - 1], kind="stable"))

    def _timelines(self, chosen: Ints) -> "TrainingEvents":
        _, events = expand(self.offsets[chosen], self.offsets[chosen + 1])
        offsets = np.concatenate(([0], np.cumsum(np.diff(self.offsets)[chosen])))
        times = None if self.times is None else self.times[events]
        return TrainingEvents(
            self.num_candidates, self.counts, self.candidates[events], offsets, times
        )


def read_training_events(
    files: Sequence[str],
    spec: FeatureSpec,
    index_of: IndexOf,
    num_candidates: int,
    query_ids: Set[bytes],
    max_events: int = MAX_EVENTS,
) -> tuple[TrainingEvents, frozenset[bytes]]:
    """Read the `train` split, keep its newest timelines, and find which `query_ids` it contains.

    Memory is bounded by `max_events`, the catalogue and `query_ids`. If there are more events, the
    timelines that ended last are kept; without timestamps, those that are read last.

    Args:
        files: Files of the split.
        spec: IDs and features.
        index_of: Returns the index of each candidate ID; -1 if the catalogue lacks it.
        num_candidates: Size of the catalogue.
        query_ids: Query IDs to look for in the split.
        max_events: Approximate number of events to keep.

    Returns:
        The events, and the subset of `query_ids` that have training events.
    """
    counts = np.zeros(num_candidates, np.int64)  # one array, shared by all parts
    nothing = np.zeros(0, np.int64)
    no_times = nothing if spec.columns.timestamp else None
    parts = [TrainingEvents(num_candidates, counts, nothing, np.zeros(1, np.int64), no_times)]
    known_queries: set[bytes] = set()
    for batch in read_events(files, spec, _TIMELINES_PER_BATCH):
        known_queries.update(query_ids & set(batch.queries.tolist()))
        indices = index_of(batch.candidates)
        known = indices >= 0
        # Drops timelines that have no known candidate.
        offsets = np.unique(np.concatenate(([0], np.cumsum(known)))[batch.offsets])
        times = None if batch.times is None else batch.times[known]
        counts += np.bincount(indices[known], minlength=num_candidates)
        parts.append(TrainingEvents(num_candidates, counts, indices[known], offsets, times))
        if sum(len(part.candidates) for part in parts) > 2 * max_events:
            parts = [_joined(parts).by_recency().newest(max_events)]
    return _joined(parts).by_recency().newest(max_events), frozenset(known_queries)


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
