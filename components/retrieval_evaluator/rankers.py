"""The rankers of an evaluation, and the exact ranks that they give over the full catalogue.

A ranker is the model, the last blessed model or a baseline. For a block of evaluation queries, it
yields rankings of all candidates, from dense scores or from sparse co-occurrence scores.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.retrieval_evaluator.baselines.interface import (
    CooccurrenceScores,
    Histories,
    LinearScores,
)
from components.retrieval_evaluator.evaluation_queries import EvaluationQueries
from models.towers.saved_towers import SavedTowers

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating[Any]]

MODEL = "model"
LAST_BLESSED = "last_blessed"

# If a baseline finds a smaller share of the candidates, a sparse ranking is faster.
_SPARSE_SHARE = 0.01
# 16 MB. Larger arrays are returned to the operating system and allocated again for every block,
# which takes longer than the multiplication that fills them.
_SCORES_PER_PART = 4_000_000
# With fewer rows, a multiplication reads the vectors of a large catalogue too often: with 500,000
# candidates, 8 rows take three times as long per row as 32.
_FEWEST_ROWS = 32
UNRANKED = np.iinfo(np.int64).max


class Ranking(Protocol):
    """All candidates, ranked for each evaluation query of a block."""

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Remove each candidate from the ranking of its row in `rows`; candidate -1 is ignored."""

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Return the rank, from 1, of each target among all candidates of its row.

        A target ranks after every candidate with the same score, so that a constant ranker ranks
        every target last. A target that is excluded, outside the catalogue (-1), or whose score is
        not finite has the rank `UNRANKED`.
        """

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Return positions, from 0, and candidates of the k best of all rows, each in one array."""


# Yields the rankings of a block part by part, each with the evaluation queries of that part.
Ranked = Iterator[tuple[EvaluationQueries, Ranking]]
Ranker = Callable[[EvaluationQueries], Ranked]
Baseline = Callable[[Histories], CooccurrenceScores | LinearScores]


def towers_ranker(towers: SavedTowers, vectors: Scores) -> Ranker:
    """Return a ranker that embeds raw queries, as a server does, and scores all candidates."""

    def rank(queries: EvaluationQueries) -> Ranked:
        embeddings = towers.embed_queries(queries.inputs)
        for first, last, part in parts(queries, len(vectors)):
            scores = embeddings[first:last] @ vectors.T
            part.hide_unavailable(scores)
            yield part, DenseRanking(scores)

    return rank


def baseline_ranker(baseline: Baseline) -> Ranker:
    """Return a ranker that scores candidates with a baseline."""

    def rank(queries: EvaluationQueries) -> Ranked:
        histories = Histories(len(queries), queries.history_rows, queries.history, queries.times)
        scores = baseline(histories).first(queries.num_candidates)
        size = len(scores.popularity)
        if (
            isinstance(scores, CooccurrenceScores)
            and queries.availability is None
            and scores.found.nnz < _SPARSE_SHARE * len(queries) * size
        ):
            yield queries, SparseRanking(scores)
            return
        for first, last, part in parts(queries, size):
            dense = scores.dense(first, last)
            part.hide_unavailable(dense)
            yield part, DenseRanking(dense)

    return rank


def parts(
    queries: EvaluationQueries, num_candidates: int
) -> Iterator[tuple[int, int, EvaluationQueries]]:
    """Yield parts of a block with few enough scores for memory, with their first and last row."""
    step = max(_FEWEST_ROWS, _SCORES_PER_PART // max(num_candidates, 1))
    for first in range(0, len(queries), step):
        last = min(first + step, len(queries))
        yield first, last, queries.part(first, last)


class DenseRanking:
    """Ranking by dense scores `[num_rows, num_candidates]`, which are changed in place."""

    def __init__(self, scores: Scores) -> None:
        # A candidate with a non-finite score ranks after all others, and a target with one is
        # unranked.
        if scores.size and not np.isfinite([scores.min(), scores.max()]).all():
            scores[~np.isfinite(scores)] = -np.inf
        self._scores = scores

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Remove candidates (`Ranking.exclude`)."""
        known = candidates >= 0
        self._scores[rows[known], candidates[known]] = -np.inf

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Return the rank of each target (`Ranking.ranks`)."""
        scores = self._scores
        ranks = np.full(len(targets), UNRANKED, dtype=np.int64)
        for number in np.flatnonzero(targets >= 0).tolist():
            row = scores[target_rows[number]]
            score = row[targets[number]]
            if score > -np.inf:
                # One row at a time stays in the processor's cache, and numpy counts a row in half
                # the time in which it sums the rows of a matrix.
                ranks[number] = np.count_nonzero(row >= score)
        return ranks

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Return the k best of each row (`Ranking.best`), without excluded candidates."""
        scores, k = self._scores, min(k, self._scores.shape[1])
        num_rows, number = scores.shape
        # Each row is cut into many parts. At least k candidates score as much as the k-th best
        # maximum of the parts, so candidates below that, which are nearly all, cannot be among the
        # k best. This is four times as fast as top_k.
        width = number // (8 * k)
        if width > 1:
            cut = scores[:, : number // width * width].reshape(num_rows, width, number // width)
            maxima = cut.max(axis=1)
            least = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k]
            flat = np.flatnonzero(scores >= least[:, None])
            if len(flat) < 4 * k * num_rows:
                row, candidate = flat // number, flat % number
                return _best(k, row, candidate, scores[row, candidate])
        values, best = (part.numpy() for part in tf.math.top_k(scores, k))
        _, position = np.nonzero(values > -np.inf)
        return position, best[values > -np.inf].astype(np.int64)


class SparseRanking:
    """Ranking by `CooccurrenceScores.dense`, computed without the dense scores.

    Its cost grows with the number of candidates found, not with the size of the catalogue. The
    ranks of the other candidates are computed from their popularity and from the candidates that
    are found or excluded.
    """

    def __init__(self, scores: CooccurrenceScores) -> None:
        found = scores.found
        found.sort_indices()
        self._num_rows, self._size = found.shape
        self._starts = found.indptr.astype(np.int64)
        self._rows = np.repeat(np.arange(self._num_rows), np.diff(self._starts))
        self._candidates = found.indices.astype(np.int64)
        self._keys = self._rows * self._size + self._candidates  # ascending
        self._scores = found.data  # -inf if the candidate is excluded
        self._by_popularity = np.argsort(-scores.popularity, kind="stable")
        self._popularity_rank = np.empty(self._size, np.int64)
        self._popularity_rank[self._by_popularity] = np.arange(self._size)
        self._excluded = np.zeros(0, np.int64)
        # Excluded candidates that were not found, as `row * size + popularity rank`, ascending.
        self._others = np.zeros(0, np.int64)
        self._num_excluded = np.zeros(len(self._keys) + 1, np.int64)  # before each entry

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Remove candidates (`Ranking.exclude`)."""
        known = candidates >= 0
        self._excluded = np.unique(rows[known] * self._size + candidates[known])
        is_found = _contains(self._keys, self._excluded)
        self._scores = self._scores.copy()
        self._scores[np.searchsorted(self._keys, self._excluded[is_found])] = -np.inf
        self._num_excluded = np.concatenate(([0], np.cumsum(self._scores == -np.inf)))
        rows, others = np.divmod(self._excluded[~is_found], self._size)
        self._others = np.sort(rows * self._size + self._popularity_rank[others])

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Return the rank of each target (`Ranking.ranks`)."""
        ranks = np.full(len(targets), UNRANKED, np.int64)
        keys = target_rows * self._size + targets
        rankable = np.flatnonzero((targets >= 0) & ~_contains(self._excluded, keys))
        rows, keys = target_rows[rankable], keys[rankable]
        is_found = _contains(self._keys, keys)
        entries = np.searchsorted(self._keys, keys)
        popularity = self._popularity_rank[targets[rankable]]
        excluded = np.searchsorted(self._others, rows * self._size + popularity)
        excluded -= np.searchsorted(self._others, rows * self._size)
        others = self._num_found(rows) + popularity + 1 - excluded
        for number, row in enumerate(rows.tolist()):
            entries_of_row = slice(self._starts[row], self._starts[row + 1])
            if is_found[number]:
                # A tie counts against the target.
                scores = self._scores[entries_of_row]
                rank = np.count_nonzero(scores >= self._scores[entries[number]])
            else:
                found = self._popularity_rank[self._candidates[entries_of_row]]
                rank = others[number] - np.count_nonzero(found < popularity[number])
            ranks[rankable[number]] = rank
        return ranks

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Return the k best of each row (`Ranking.best`)."""
        least = np.full(self._num_rows, -np.inf)
        for row in np.flatnonzero(np.diff(self._starts) > k):
            scores = self._scores[self._starts[row] : self._starts[row + 1]]
            least[row] = np.partition(scores, -k)[-k]
        chosen = self._scores >= least[self._rows]
        found = _best(k, self._rows[chosen], self._candidates[chosen], self._scores[chosen])
        positions, candidates = self._best_by_popularity(k)
        return np.concatenate((found[0], positions)), np.concatenate((found[1], candidates))

    def _best_by_popularity(self, k: int) -> tuple[Ints, Ints]:
        """Return the most popular other candidates, for rows in which fewer than k were found."""
        num_found = self._num_found(np.arange(self._num_rows))
        is_short = num_found < k
        short = np.flatnonzero(is_short)
        # Found and excluded candidates as in `_others`.
        of_short = is_short[self._rows]
        found = self._popularity_rank[self._candidates[of_short]]
        found += self._rows[of_short] * self._size
        taken = np.sort(np.concatenate((found, self._others)))
        missing = k - num_found[short]
        starts, ends = (np.searchsorted(taken, (short + more) * self._size) for more in (0, 1))
        # This many of the most popular candidates include enough that are not taken.
        lengths = np.minimum(missing + ends - starts, self._size)
        row = np.repeat(np.arange(len(short)), lengths)
        rank = np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]
        is_free = ~_contains(taken, short[row] * self._size + rank)
        row, rank = row[is_free], rank[is_free]
        nth = np.arange(len(row)) - np.searchsorted(row, row)
        kept = nth < missing[row]
        row, rank, nth = row[kept], rank[kept], nth[kept]
        return num_found[short][row] + nth, self._by_popularity[rank]

    def _num_found(self, rows: Ints) -> Ints:
        """Return the number of candidates of each row that were found and not excluded."""
        first, last = self._starts[rows], self._starts[rows + 1]
        found: Ints = last - first - self._num_excluded[last] + self._num_excluded[first]
        return found


def _best(k: int, rows: Ints, candidates: Ints, scores: Scores) -> tuple[Ints, Ints]:
    """Return the k best of each row (`Ranking.best`), given as one array of all rows.

    Ties go to the lower candidate.
    """
    order = np.lexsort((candidates, -scores, rows))
    rows, candidates, scores = rows[order], candidates[order], scores[order]
    positions = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = (positions < k) & (scores > -np.inf)
    return positions[kept], candidates[kept]


def _contains(ascending: Ints, keys: Ints) -> Bools:
    if not len(ascending):
        return np.zeros(len(keys), bool)
    index = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    contains: Bools = ascending[index] == keys
    return contains
