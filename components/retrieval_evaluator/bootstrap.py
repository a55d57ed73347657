"""How sure a metric is, and a difference of two: by drawing queries again and again."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SEED = 42


@dataclass(frozen=True)
class Interval:
    """A value and its interval."""

    value: float
    low: float
    high: float


class PairedBootstrap:
    """Resamples queries, the same ones for every contender.

    Queries are drawn, not events: the events of a query are alike, and an interval that took them
    for independent would be too narrow.

    Args:
        sums: What each query adds to a contender's metric, by contender [num_queries].
        weights: Of each query in the metric, the same for all [num_queries].
        resamples: How often queries are drawn.
        confidence: Share of the resamples that an interval holds.

    References:
        Efron, Tibshirani. An Introduction to the Bootstrap, 1993. (percentile interval)
        Sakai. Evaluating Evaluation Metrics based on the Bootstrap. SIGIR 2006.
    """

    def __init__(
        self,
        sums: Mapping[str, Floats],
        weights: Floats,
        resamples: int,
        confidence: float,
    ) -> None:
        self._confidence = confidence
        self._names = list(sums)
        every = np.stack([*sums.values(), weights])
        self._values = _ratios(every.sum(axis=1, keepdims=True))[:, 0]
        number = len(weights)
        drawn = np.full((len(every), resamples), np.nan)
        # A fixed seed: the same evaluation blesses the same model.
        chance = np.random.default_rng(_SEED)
        for resample in range(resamples if number else 0):
            times = np.bincount(chance.integers(0, number, number), minlength=number)
            drawn[:, resample] = every @ times
        self._drawn = _ratios(drawn)

    def interval(self, contender: str) -> Interval:
        """Returns a contender's metric."""
        return self.difference(contender, contender, 0.0)

    def difference(self, contender: str, other: str, factor: float) -> Interval:
        """Returns a contender's metric less `factor` times that of another."""
        place, against = self._names.index(contender), self._names.index(other)
        drawn = self._drawn[place] - factor * self._drawn[against]
        outside = (1.0 - self._confidence) / 2.0
        low, high = np.quantile(drawn, [outside, 1.0 - outside])
        value = self._values[place] - factor * self._values[against]
        return Interval(float(value), float(low), float(high))


def _ratios(totals: Floats) -> Floats:
    """Divides each contender's total `[contenders + 1, n]` by that of the weights, the last."""
    with np.errstate(invalid="ignore"):
        ratios: Floats = totals[:-1] / totals[-1]
    return ratios
