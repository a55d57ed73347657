"""The inputs and outputs of all baselines: training events, histories, co-occurrence scores."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import sparse

from models.features.spec import FeatureSpec
from models.input.raw_examples import read_events

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating[Any]]
# Returns the index of each candidate ID (bytes or a string tensor); -1 if unknown.
IndexOf = Callable[[Any], Ints]

_TIMELINES_PER_BATCH = 4096
# Baselines count pairs: 5 million events give about 50 million pairs, which take a minute and 2 GB.
MAX_EVENTS = 5_000_000
# Candidates that a baseline keeps for a query if it finds many; the others rank by popularity.
KEPT = 500


class CandidateIndex:
    """Indices of candidates: those of the catalogue, then those that only training events have.

    The latter are never recommended, but the events of a history that come before and after them
    are counted as they happened.
    """

    def __init__(self, ids: npt.NDArray[np.object_]) -> None:
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(ids.tolist(), tf.string), tf.range(len(ids), dtype=tf.int64)
        )
        self._listed = tf.lookup.StaticHashTable(initializer, -1)
        self._others: dict[bytes, int] = {}
        self._num_listed = len(ids)

    def __call__(self, names: Any) -> Ints:
        """Return the index of each ID; -1 if it is unknown (`IndexOf`)."""
        return self._indices(names, lambda name: self._others.get(name, -1))

    def add(self, names: Any) -> Ints:
        """Return the index of each ID, after adding unknown ones."""
        others = self._others
        return self._indices(
            names, lambda name: others.setdefault(name, self._num_listed + len(others))
        )

    def _indices(self, names: Any, index_of_other: Callable[[bytes], int]) -> Ints:
        names = tf.convert_to_tensor(names, tf.string)
        indices: Ints = self._listed.lookup(names).numpy()
        others = np.flatnonzero(indices < 0)
        if len(others):
            indices[others] = list(map(index_of_other, tf.gather(names, others).numpy()))
        return indices


@dataclass(frozen=True)
class Histories:
    """The histories of a block of evaluation queries.

    Attributes:
        rows: Evaluation query of each event, ascending `[num_events]`.
        events: Index of each event's candidate (`CandidateIndex`), oldest first within a history;
            -1 if unknown `[num_events]`.
        times: Time of each evaluation query in epoch seconds `[num_queries]`; None without
            timestamps.
    """

    num_queries: int
    rows: Ints
    events: Ints
    times: Ints | None = None

    @property
    def ages(self) -> Ints:
        """The number of newer events in the same history, for each event `[num_events]`."""
        ends = np.cumsum(np.bincount(self.rows, minlength=self.num_queries))
        return ends[self.rows] - 1 - np.arange(len(self.rows))


@dataclass(frozen=True)
class CooccurrenceScores:
    """Scores of all candidates: sparse scores of those found by a baseline, popularity of the rest.

    Attributes:
        found: Positive scores of the candidates found `[num_queries, num_candidates]`, float64. All
            other candidates rank after them, in the order of `popularity`.
        popularity: Scores in (0, 1] without ties `[num_candidates]` (`popularity_scores`).
    """

    found: sparse.csr_matrix
    popularity: Scores

    @classmethod
    def untied(cls, found: sparse.spmatrix, popularity: Scores) -> "CooccurrenceScores":
        """Return scores in which popularity breaks the ties of `found`.

        A tie counts against a ranker, which would be unfair to baselines whose scores are whole
        numbers.
        """
        found = found.tocsr()
        # float64, because float32 cannot represent a difference of one rank in a large catalogue.
        factors = 1.0 + 1e-3 * popularity.astype(np.float64)
        scores = found.data * factors[found.indices]
        # Unlike `astype`, this does not sort.
        found = sparse.csr_matrix((scores, found.indices, found.indptr), found.shape)
        return cls(found, popularity)

    def first(self, num_candidates: int) -> "CooccurrenceScores":
        """Return the scores of the first candidates."""
        if num_candidates == self.found.shape[1]:
            return self
        return CooccurrenceScores(self.found[:, :num_candidates], self.popularity[:num_candidates])

    def dense(self, first: int = 0, last: int | None = None) -> Scores:
        """Return the scores of all candidates for the rows `first` to `last - 1`."""
        part = self.found[first:last]
        scores = np.repeat((self.popularity.astype(np.float64) - 2.0)[None, :], part.shape[0], 0)
        rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        scores[rows, part.indices] = part.data
        return scores


@dataclass(frozen=True)
class LinearScores:
    """Scores of all candidates as a matrix product, computed part by part.

    Attributes:
        queries: The history of each query `[num_queries, num_candidates]`.
        events: Vector of each candidate in a history `[num_candidates, dimension]`.
        candidates: Vector of each candidate that is ranked, or None if `events` are the scores
            `[num_candidates, dimension]`.
        popularity: Popularity scores, which break ties.
    """

    queries: sparse.csr_matrix
    events: npt.NDArray[np.float32]
    candidates: npt.NDArray[np.float32] | None
    popularity: Scores

    def first(self, num_candidates: int) -> "LinearScores":
        """Return the scores of the first candidates."""
        events, candidates = self.events, self.candidates
        if candidates is None:
            events = events[:, :num_candidates]
        else:
            candidates = candidates[:num_candidates]
        return replace(
            self, events=events, candidates=candidates, popularity=self.popularity[:num_candidates]
        )

    def dense(self, first: int = 0, last: int | None = None) -> Scores:
        """Return the scores of all candidates for the rows `first` to `last - 1`."""
        scores: Scores = self.queries[first:last] @ self.events
        if self.candidates is not None:
            scores = scores @ self.candidates.T
        # Too little to change the order of candidates that are related to the history.
        scores += 1e-6 * self.popularity
        return scores


def best_rows(rows: Iterable[tuple[Ints, Floats]], num_candidates: int) -> sparse.csr_matrix:
    """Return the `KEPT` best candidates of each row, given as candidates and positive scores."""
    candidates, scores = [np.zeros(0, np.int64)], [np.zeros(0)]
    for found, values in rows:
        if len(found) > KEPT:
            kept = np.argpartition(values, -KEPT)[-KEPT:]
            found, values = found[kept], values[kept]
        candidates.append(found)
        scores.append(values)
    offsets = np.cumsum([len(found) for found in candidates])
    return sparse.csr_matrix(
        (np.concatenate(scores), np.concatenate(candidates), offsets),
        shape=(len(offsets) - 1, num_candidates),
    )


@dataclass(frozen=True)
class TrainingEvents:
    """Timelines of training events, concatenated, with candidates as indices.

    If there are timestamps, timelines are sorted by their newest event, the most recent one last.

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
    timelines that ended last are kept; without timestamps, those that are read last. `index_of`
    returns the index of each candidate ID, -1 to leave its events out. Indices may be
    `num_candidates` or more.
    """
    counts, nothing = np.zeros(num_candidates, np.int64), np.zeros(0, np.int64)
    no_times = nothing if spec.columns.timestamp else None
    parts = [TrainingEvents(0, nothing, nothing, np.zeros(1, np.int64), no_times)]
    known_queries: set[bytes] = set()
    for batch in read_events(files, spec, _TIMELINES_PER_BATCH):
        known_queries.update(query_ids & set(batch.queries.tolist()))
        indices = index_of(batch.candidates)
        known = indices >= 0
        # Drops timelines that have no known candidate.
        offsets = np.unique(np.concatenate(([0], np.cumsum(known)))[batch.offsets])
        times = None if batch.times is None else batch.times[known]
        found = np.bincount(indices[known], minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
        parts.append(TrainingEvents(0, nothing, indices[known], offsets, times))
        if sum(len(part.candidates) for part in parts) > 2 * max_events:
            parts = [_newest(parts, max_events)]
    training = replace(_newest(parts, max_events), num_candidates=len(counts), counts=counts)
    return training, frozenset(known_queries)


def _newest(parts: Sequence[TrainingEvents], max_events: int) -> TrainingEvents:
    """Join parts, sort their timelines by recency, and keep the newest, about `max_events`."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    candidates = np.concatenate([part.candidates for part in parts])
    given_times = [part.times for part in parts if part.times is not None]
    times = np.concatenate(given_times) if given_times else None
    ends = np.cumsum(lengths)
    order = np.argsort(ends if times is None else times[ends - 1], kind="stable")
    order = order[np.cumsum(lengths[order][::-1])[::-1] <= max_events]
    _, events = expand(ends[order] - lengths[order], ends[order])
    return TrainingEvents(
        num_candidates=parts[0].num_candidates,
        counts=parts[0].counts,
        candidates=candidates[events],
        offsets=np.concatenate(([0], np.cumsum(lengths[order]))),
        times=None if times is None else times[events],
    )


def expand(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return slice number and index of every element of the slices from `starts` to `ends`."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) - np.repeat(before - starts, lengths)
