"""Exact ranks over the full catalogue, by candidate and not by score."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]

UNRANKED = np.iinfo(np.int64).max

# Scores that are compared at once: what fits into a processor's cache is faster than all of them.
_SCORES_AT_ONCE = 1_000_000


class Ranking(Protocol):
    """All candidates of a block of questions, the best first."""

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Takes candidates out of the ranking.

        Args:
            rows: Question of each `[num_excluded]`.
            candidates: `[num_excluded]`, -1 for one not in the catalogue.
        """

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Returns the rank of each target (`target_ranks`)."""

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Returns the place, from 0, and the candidate of everything among the best k of a row."""


class DenseRanking:
    """A ranking from the score of every candidate.

    Args:
        scores: `[num_questions, num_candidates]`; changed in place.
    """

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._nothing = np.zeros(0, np.int64)

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Takes candidates out of the ranking; -1 is none."""
        known = candidates >= 0
        self._scores[rows[known], candidates[known]] = -np.inf

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Returns the rank of each target (`target_ranks`)."""
        return target_ranks(self._scores, self._nothing, self._nothing, target_rows, targets)

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Returns the place, from 0, and the candidate of everything among the best k of a row.

        A candidate with a score of minus infinity is not returned.
        """
        return _best(self._scores, min(k, self._scores.shape[1]))


def target_ranks(
    scores: npt.NDArray[np.floating[Any]],
    excluded_rows: npt.NDArray[np.int64],
    excluded_candidates: npt.NDArray[np.int64],
    target_rows: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Returns the rank, from 1, of each target among all candidates of its query.

    A target stands behind every candidate that scores as much as it does, so a model that gives
    all the same score ranks every target last. A target that is excluded, not in the catalogue
    (index -1), or whose score is not a number has the rank `UNRANKED`.

    Args:
        scores: `[num_queries, num_candidates]`; changed in place.
        excluded_rows: `[num_excluded]` query of each excluded candidate.
        excluded_candidates: `[num_excluded]`, -1 for one not in the catalogue.
        target_rows: `[num_targets]` query of each target.
        targets: `[num_targets]` candidate index, or -1.
    """
    # A score that is not a number loses against every other and never wins a rank.
    if scores.size and not np.isfinite([scores.min(), scores.max()]).all():
        scores[~np.isfinite(scores)] = -np.inf
    known = excluded_candidates >= 0
    scores[excluded_rows[known], excluded_candidates[known]] = -np.inf
    ranks = np.full(len(targets), UNRANKED, dtype=np.int64)
    rankable = np.flatnonzero(targets >= 0)
    own = scores[target_rows[rankable], targets[rankable]]
    rankable, own = rankable[own > -np.inf], own[own > -np.inf]
    step = max(1, _SCORES_AT_ONCE // max(scores.shape[1], 1))
    for start in range(0, len(rankable), step):
        some = slice(start, start + step)
        rows = target_rows[rankable[some]]
        # Questions with one target each come in a row: a slice is a view, an index is a copy.
        in_a_row = rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()
        mine = scores[rows[0] : rows[-1] + 1] if in_a_row else scores[rows]
        ranks[rankable[some]] = np.count_nonzero(mine >= own[some, None], axis=1)
    return ranks


def _best(scores: Scores, k: int) -> tuple[Ints, Ints]:
    """Returns the place, from 0, and the candidate of everything among the best k of a row."""
    rows, number = scores.shape
    # At least k candidates score as much as the k-th best of the maxima of many parts: what is
    # below cannot be among the best, and that is nearly all. A quarter of the time of top_k.
    width = number // (8 * k)
    if width > 1:
        maxima = scores[:, : number // width * width].reshape(rows, -1, width).max(axis=2)
        least = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k]
        flat = np.flatnonzero(scores >= least[:, None])
        if len(flat) < 4 * k * rows:
            row, candidate = flat // number, flat % number
            score = scores[row, candidate]
            order = np.lexsort((candidate, -score, row))
            row, candidate, score = row[order], candidate[order], score[order]
            place = np.arange(len(row)) - np.searchsorted(row, row)
            kept = (place < k) & (score > -np.inf)
            return place[kept], candidate[kept]
    values, best = (part.numpy() for part in tf.math.top_k(scores, k))
    _, place = np.nonzero(values > -np.inf)
    return place, best[values > -np.inf].astype(np.int64)
