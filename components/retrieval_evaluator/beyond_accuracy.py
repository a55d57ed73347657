"""What the returned lists are like, whatever they hit."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LIST_METRICS = ("coverage", "gini", "novelty", "popularity_lift")


class ReturnedLists:
    """Counts how often each candidate stands in the first k answers.

    Args:
        ks: Cut-offs, each counted by itself.
        num_candidates: Size of the catalogue.
    """

    def __init__(self, ks: Sequence[int], num_candidates: int) -> None:
        self._ks = tuple(sorted(ks))
        # Of the places between one cut-off and the next.
        self._counts = np.zeros((len(self._ks), num_candidates), np.int64)

    @property
    def longest(self) -> int:
        """How many of the best answers are looked at."""
        return self._ks[-1]

    def add(self, places: Ints, candidates: Ints) -> None:
        """Counts what was returned: the place in its list, from 0, and the candidate of each."""
        between = np.searchsorted(self._ks, places, side="right")
        np.add.at(self._counts, (between, candidates), 1)

    def metrics(self, train_counts: Ints, history_popularity: float) -> dict[str, float]:
        """Returns coverage@k, gini@k, novelty@k and popularity_lift@k for each k.

        With n candidates, x_i lists that hold candidate i, and c_i training events of it:

        - coverage: share of candidates that stand in at least one list.
        - gini: sum over i of (2 i - n - 1) x_i, x ascending, divided by n times the sum of x; 0
          where all are returned alike, near 1 where a few fill every list.
        - novelty: mean over returned candidates of -log2 p_i, with p_i = (c_i + 1) / (sum c + n).
        - popularity_lift: mean c_i of what is returned, divided by the mean of what the queries
          took themselves, less 1; above 0 the model pushes what is popular anyway.

        Args:
            train_counts: Training events of each candidate [num_candidates].
            history_popularity: Mean training events of a history's candidates, averaged over the
                questions that have a history.

        References:
            Castells, Hurley, Vargas. Novelty and Diversity in Recommender Systems. Recommender
            Systems Handbook, 2015. (coverage, Gini, self-information)
            Abdollahpouri, Mansoury, Burke, Mobasher. The Unfairness of Popularity Bias in
            Recommendation. RMSE workshop at RecSys 2019. (popularity lift)
        """
        surprise = -np.log2((train_counts + 1) / (train_counts.sum() + len(train_counts)))
        found: dict[str, float] = {}
        for k, lists in zip(self._ks, np.cumsum(self._counts, axis=0), strict=True):
            returned = lists.sum()
            mean = lists / returned if returned else np.full(len(lists), np.nan)
            found[f"coverage@{k}"] = float((lists > 0).mean())
            found[f"gini@{k}"] = _gini(lists)
            found[f"novelty@{k}"] = float(mean @ surprise)
            found[f"popularity_lift@{k}"] = float(
                mean @ train_counts / history_popularity - 1.0 if history_popularity else np.nan
            )
        return found


def _gini(counts: Ints) -> float:
    total, number = counts.sum(), len(counts)
    if not total:
        return float("nan")
    order = 2 * np.arange(1, number + 1) - number - 1
    return float((order * np.sort(counts)).sum() / (number * total))
