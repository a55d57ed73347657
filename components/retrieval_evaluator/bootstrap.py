"""Bootstrap intervals of a metric and of its difference between two rankers."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SEED = 42
# A product of two matrices reads `sums` once for all of these.
_RESAMPLES_PER_BLOCK = 16


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def order(self) -> float:
        """`low` for comparisons; without a value, it is below all others."""
        return -math.inf if math.isnan(self.low) else self.low


@dataclass(frozen=True)
class Comparison:
    """Interval of the model's `metric` minus `factor` times that of the ranker `against`."""

    metric: str
    against: str
    factor: float
    interval: Interval


class PairedBootstrap:
    """Bootstrap that uses the same resampled queries for all rankers, or rankers and metrics.

    It resamples queries rather than events, because the events of a query are correlated: an
    interval that treats them as independent would be too narrow.

    Args:
        sums: For each ranker, the contribution of each query to the metric `[num_queries]`.
        weights: Weight of each query, the same for all rankers `[num_queries]`.
        resamples: Number of resamples.
        confidence: Share of the resamples inside an interval.

    References:
        Efron, Tibshirani. An Introduction to the Bootstrap, 1993. (percentile interval)
        Sakai. Evaluating Evaluation Metrics based on the Bootstrap. SIGIR 2006.
    """

    def __init__(
        self, sums: Mapping[Any, Floats], weights: Floats, resamples: int, confidence: float
    ) -> None:
        self._confidence = confidence
        self._names = list(sums)
        stacked = np.stack([*sums.values(), weights])
        self._values = _ratios(stacked.sum(axis=1, keepdims=True))[:, 0]
        number = len(weights)
        resampled = np.full((len(stacked), resamples), np.nan)
        # The seed is fixed, so that the same evaluation always gives the same decision.
        rng = np.random.default_rng(_SEED)
        for first in range(0, resamples if number else 0, _RESAMPLES_PER_BLOCK):
            block = slice(first, min(first + _RESAMPLES_PER_BLOCK, resamples))
            times = [
                np.bincount(rng.integers(0, number, number), minlength=number)
                for _ in range(block.start, block.stop)
            ]
            resampled[:, block] = stacked @ np.array(times, np.float64).T
        self._resampled = _ratios(resampled)

    def interval(self, ranker: Hashable) -> Interval:
        """Return the metric of a ranker with its confidence interval."""
        return self.difference(ranker, ranker, 0.0)

    def difference(self, ranker: Hashable, other: Hashable, factor: float) -> Interval:
        """Return the metric of `ranker` minus `factor` times that of `other`, with its interval."""
        index, against = self._names.index(ranker), self._names.index(other)
        resampled = self._resampled[index] - factor * self._resampled[against]
        outside = (1.0 - self._confidence) / 2.0
        low, high = np.quantile(resampled, [outside, 1.0 - outside])
        value = self._values[index] - factor * self._values[against]
        return Interval(float(value), float(low), float(high))


def _ratios(totals: Floats) -> Floats:
    """Divide the totals `[num_rankers + 1, n]` by the last row, which holds the weights."""
    with np.errstate(invalid="ignore"):
        ratios: Floats = totals[:-1] / totals[-1]
    return ratios
