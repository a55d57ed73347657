"""Item-kNN: candidates that stand in the same timelines as those of the history."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.retrieval_evaluator.baselines.cooccurrence_scores import CountedScores, Scores
from components.retrieval_evaluator.baselines.histories import Histories
from components.retrieval_evaluator.baselines.training_events import Indices, TrainingEvents

Floats = npt.NDArray[np.float64]

# Of a timeline: its pairs grow with the square of it.
_NEWEST_EVENTS = 500
# Co-occurrences that are held before only the nearest are kept.
_PAIRS_AT_ONCE = 20_000_000


class ItemKNN:
    """Scores a candidate by its cosine similarity to the history, summed over the history.

    Order means nothing to it, neither in training nor in the history.

    Args:
        training: What to count.
        popularity: For candidates that are near to nothing.
        neighbours: How many are kept of each candidate.
        shrinkage: Added to the norms: what was seen rarely is believed less.

    References:
        Sarwar, Karypis, Konstan, Riedl. Item-based Collaborative Filtering Recommendation
        Algorithms. WWW 2001.
    """

    def __init__(
        self,
        training: TrainingEvents,
        popularity: Scores,
        neighbours: int = 100,
        shrinkage: float = 10.0,
    ) -> None:
        self._popularity = popularity
        self._similar = _similarities(training, neighbours, shrinkage)

    def scores(self, histories: Histories) -> CountedScores:
        """Returns scores for each history."""
        known = histories.events >= 0
        asked = sparse.csr_matrix(
            (np.ones(known.sum(), np.float32), (histories.rows[known], histories.events[known])),
            shape=(histories.num_questions, self._similar.shape[0]),
        )
        asked.data[:] = 1.0  # a candidate met twice is one
        return CountedScores.untied(asked @ self._similar, self._popularity)


def _similarities(training: TrainingEvents, neighbours: int, shrinkage: float) -> sparse.csr_matrix:
    timeline, lengths = training.timeline_of, np.diff(training.offsets)
    from_end = training.offsets[timeline + 1] - 1 - np.arange(len(timeline))
    kept = from_end < _NEWEST_EVENTS
    met = sparse.csr_matrix(
        (np.ones(kept.sum(), np.float32), (timeline[kept], training.candidates[kept])),
        shape=(len(lengths), training.num_candidates),
    )
    met.sum_duplicates()
    met.data[:] = 1.0
    by_candidate = met.T.tocsr()
    norms = np.sqrt(np.diff(by_candidate.indptr))
    work = by_candidate @ np.diff(met.indptr)
    parts = []
    for first, last in _chunks(work):
        counts = (by_candidate[first:last] @ met).tocsr()
        parts.append(_nearest(counts, norms, first, neighbours, shrinkage))
    return sparse.vstack(parts).tocsr() if parts else sparse.csr_matrix((0, 0), dtype=np.float32)


def _chunks(work: Floats) -> list[tuple[int, int]]:
    """Cuts the candidates where their co-occurrences become too many at once."""
    part = (np.cumsum(work) // _PAIRS_AT_ONCE).astype(np.int64)
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    ends = np.append(starts[1:], len(work))
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _nearest(
    counts: sparse.csr_matrix, norms: Floats, first: int, neighbours: int, shrinkage: float
) -> sparse.csr_matrix:
    """Returns the similarities of each row to its nearest; of equal ones those of lower index."""
    starts = counts.indptr
    columns: list[Indices] = []
    values: list[Floats] = []
    for row in range(counts.shape[0]):
        mine = slice(starts[row], starts[row + 1])
        column = counts.indices[mine]
        similarity = counts.data[mine] / (norms[row + first] * norms[column] + shrinkage)
        similarity[column == row + first] = 0.0  # itself
        # Sorting all of them would take ten times as long.
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
