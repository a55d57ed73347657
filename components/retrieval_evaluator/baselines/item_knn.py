"""Item-kNN: candidates that occur in the same timelines as those of the history."""

from dataclasses import InitVar, dataclass

import numpy as np
from scipy import sparse

from components.retrieval_evaluator.baselines.interface import (
    CooccurrenceScores,
    Histories,
    Ints,
    Scores,
    TrainingEvents,
)

# The number of pairs in a timeline grows with the square of its length.
_NEWEST_EVENTS_PER_TIMELINE = 500
# Bounds memory: co-occurrences computed at a time, before all but the nearest are dropped.
_PAIRS_PER_CHUNK = 20_000_000


@dataclass(eq=False)
class ItemKNN:
    """Baseline that sums the cosine similarities of a candidate to the history's candidates.

    It ignores the order of events, both in training and in the history.

    Attributes:
        popularity: Popularity scores, which break ties and order all other candidates.
        neighbours: Number of similar candidates kept for each candidate.
        shrinkage: Added to the product of the norms, to discount rare candidates.

    References:
        Sarwar, Karypis, Konstan, Riedl. Item-based Collaborative Filtering Recommendation
        Algorithms. WWW 2001.
    """

    training: InitVar[TrainingEvents]
    popularity: Scores
    neighbours: int = 100
    shrinkage: float = 10.0

    def __post_init__(self, training: TrainingEvents) -> None:
        self._similar = _similarities(training, self.neighbours, self.shrinkage)

    def scores(self, histories: Histories) -> CooccurrenceScores:
        """Return the scores of all candidates for each history."""
        known = histories.events >= 0
        queries = _binary(
            histories.rows[known],
            histories.events[known],
            (histories.num_queries, self._similar.shape[0]),
        )
        return CooccurrenceScores.untied(queries @ self._similar, self.popularity)


def _binary(rows: Ints, columns: Ints, shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0  # a repeated candidate counts once
    return matrix


def _similarities(training: TrainingEvents, neighbours: int, shrinkage: float) -> sparse.csr_matrix:
    timeline = training.timeline_of
    from_end = training.offsets[timeline + 1] - 1 - np.arange(len(timeline))
    kept = from_end < _NEWEST_EVENTS_PER_TIMELINE
    occurrences = _binary(
        timeline[kept],
        training.candidates[kept],
        (training.num_timelines, training.num_candidates),
    )
    by_candidate = occurrences.T.tocsr()
    norms = np.sqrt(np.diff(by_candidate.indptr))
    parts = []
    for first, last in _chunks(by_candidate @ np.diff(occurrences.indptr)):
        counts = (by_candidate[first:last] @ occurrences).tocsr()
        parts.append(_nearest(counts, norms, first, neighbours, shrinkage))
    return sparse.vstack(parts).tocsr() if parts else sparse.csr_matrix((0, 0), dtype=np.float32)


def _chunks(num_pairs: Scores) -> list[tuple[int, int]]:
    """Split the candidates into chunks (start, end) with a bounded number of co-occurrences."""
    chunk = (np.cumsum(num_pairs) // _PAIRS_PER_CHUNK).astype(np.int64)
    starts = np.flatnonzero(np.diff(chunk, prepend=-1))
    ends = np.append(starts[1:], len(num_pairs))
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _nearest(
    counts: sparse.csr_matrix, norms: Scores, first: int, neighbours: int, shrinkage: float
) -> sparse.csr_matrix:
    """Return the similarities of each row's nearest candidates; ties go to the lower index."""
    starts = counts.indptr
    columns: list[Ints] = []
    values: list[Scores] = []
    for row in range(counts.shape[0]):
        entries = slice(starts[row], starts[row + 1])
        column = counts.indices[entries]
        similarity = counts.data[entries] / (norms[row + first] * norms[column] + shrinkage)
        similarity[column == row + first] = 0.0  # the candidate itself
        # Sorting the whole row would take ten times as long.
        if len(column) > neighbours:
            least = np.partition(similarity, -neighbours)[-neighbours]
            kept = np.flatnonzero(similarity > least)
            tied = np.flatnonzero(similarity == least)
            lowest = tied[np.argsort(column[tied])][: neighbours - len(kept)]
            kept = np.concatenate((kept, lowest))
            column, similarity = column[kept], similarity[kept]
        near = similarity > 0
        columns.append(column[near])
        values.append(similarity[near])
    offsets = np.cumsum([0, *map(len, columns)])
    data = np.concatenate(values).astype(np.float32)
    return sparse.csr_matrix((data, np.concatenate(columns), offsets), shape=counts.shape)
