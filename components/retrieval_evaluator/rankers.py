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
UNRANKED = np.iinfo(np.int64).max

# Scores compared at a time; few enough to fit into the processor's cache, which is faster.
_SCORES_PER_CHUNK = 1_000_000


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
    step = max(1, _SCORES_PER_PART // max(num_candidates, 1))
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
        rankable = np.flatnonzero(targets >= 0)
        target_scores = scores[target_rows[rankable], targets[rankable]]
        is_finite = target_scores > -np.inf
        rankable, target_scores = rankable[is_finite], target_scores[is_finite]
        step = max(1, _SCORES_PER_CHUNK // max(scores.shape[1], 1))
        for start in range(0, len(rankable), step):
            chunk = slice(start, start + step)
            rows = target_rows[rankable[chunk]]
            # With one target per row, a slice avoids copying the scores.
            is_range = rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()
            row_scores = scores[rows[0] : rows[-1] + 1] if is_range else scores[rows]
            ranks[rankable[chunk]] = np.count_nonzero(
                row_scores >= target_scores[chunk, None], axis=1
            )
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
            maxima = scores[:, : number // width * width].reshape(num_rows, -1, width).max(axis=2)
            least = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k]
            flat = np.flatnonzero(scores >= least[:, None])
            if len(flat) < 4 * k * num_rows:
                row, candidate = flat // number, flat % number
                score = scores[row, candidate]
                order = np.lexsort((candidate, -score, row))
                row, candidate, score = row[order], candidate[order], score[order]
                position = np.arange(len(row)) - np.searchsorted(row, row)
                kept = (position < k) & (score > -np.inf)
                return position[kept], candidate[kept]
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
        rows = np.repeat(np.arange(self._num_rows), np.diff(self._starts))
        candidates = found.indices.astype(np.int64)
        self._keys = rows * self._size + candidates  # ascending
        # Sorted by row, best first; `position_of` maps an entry of `keys` to that order.
        order = np.lexsort((-found.data, rows))
        self._rows, self._candidates = rows, candidates[order]
        self._position_of = np.empty_like(order)
        self._position_of[order] = np.arange(len(order))
        data = found.data[order]
        differs = (np.diff(data) != 0) | (np.diff(rows) != 0)
        ends = np.append(np.flatnonzero(differs), len(order) - 1)[: len(order)]
        # A tie counts against the target, which gets the last position among equal scores.
        self._tied_to = ends[np.searchsorted(ends, np.arange(len(order)))]
        self._by_popularity = np.argsort(-scores.popularity, kind="stable")
        self._popularity_rank = np.empty(self._size, np.int64)
        self._popularity_rank[self._by_popularity] = np.arange(self._size)
        # Found and excluded candidates as `row * size + popularity rank`, ascending.
        self._taken = np.sort(rows * self._size + self._popularity_rank[candidates])
        self._excluded = np.zeros(0, np.int64)
        self._is_excluded: Bools = np.zeros(len(order), bool)
        self._num_excluded = np.zeros(len(order) + 1, np.int64)  # before each entry, and in total

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Remove candidates (`Ranking.exclude`)."""
        known = candidates >= 0
        self._excluded = np.unique(rows[known] * self._size + candidates[known])
        is_found = _contains(self._keys, self._excluded)
        entry = np.searchsorted(self._keys, self._excluded[is_found])
        self._is_excluded[self._position_of[entry]] = True
        others = self._excluded[~is_found]
        ranks = others // self._size * self._size + self._popularity_rank[others % self._size]
        self._taken = np.sort(np.concatenate((self._taken, ranks)))
        self._num_excluded = np.concatenate(([0], np.cumsum(self._is_excluded)))

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Return the rank of each target (`Ranking.ranks`)."""
        ranks = np.full(len(targets), UNRANKED, np.int64)
        keys = target_rows * self._size + targets
        rankable = np.flatnonzero((targets >= 0) & ~_contains(self._excluded, keys))
        rows, keys = target_rows[rankable], keys[rankable]
        is_found = _contains(self._keys, keys)
        first = self._starts[rows[is_found]]
        entry = np.searchsorted(self._keys, keys[is_found])
        position = self._tied_to[self._position_of[entry]]
        before = self._num_excluded[position + 1] - self._num_excluded[first]
        ranks[rankable[is_found]] = position + 1 - first - before
        rows = rows[~is_found]
        popularity = self._popularity_rank[targets[rankable[~is_found]]]
        taken = np.searchsorted(self._taken, rows * self._size + popularity)
        taken -= np.searchsorted(self._taken, rows * self._size)
        ranks[rankable[~is_found]] = self._num_found(rows) + popularity + 1 - taken
        return ranks

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Return the k best of each row (`Ranking.best`)."""
        position = np.arange(len(self._rows)) - self._starts[self._rows]
        position -= self._num_excluded[:-1] - self._num_excluded[self._starts[self._rows]]
        chosen = ~self._is_excluded & (position < k)
        positions, candidates = self._best_by_popularity(k)
        return (
            np.concatenate((position[chosen], positions)),
            np.concatenate((self._candidates[chosen], candidates)),
        )

    def _best_by_popularity(self, k: int) -> tuple[Ints, Ints]:
        """Return the most popular other candidates, for rows in which fewer than k were found."""
        num_found = self._num_found(np.arange(self._num_rows))
        short = np.flatnonzero(num_found < k)
        missing = k - num_found[short]
        starts, ends = (
            np.searchsorted(self._taken, (short + more) * self._size) for more in (0, 1)
        )
        # This many of the most popular candidates include enough that are not taken.
        lengths = np.minimum(missing + ends - starts, self._size)
        row = np.repeat(np.arange(len(short)), lengths)
        rank = np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]
        is_free = ~_contains(self._taken, short[row] * self._size + rank)
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


def _contains(ascending: Ints, keys: Ints) -> Bools:
    if not len(ascending):
        return np.zeros(len(keys), bool)
    index = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    contains: Bools = ascending[index] == keys
    return contains
