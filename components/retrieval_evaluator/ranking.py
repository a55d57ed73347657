"""Exact ranks over the full catalogue, by candidate and not by score."""

from typing import Any

import numpy as np
import numpy.typing as npt

UNRANKED = np.iinfo(np.int64).max

# Scores that are compared at once: what fits into a processor's cache is faster than all of them.
_SCORES_AT_ONCE = 1_000_000


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
