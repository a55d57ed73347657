"""Jensen-Shannon divergence of two samples of numbers, from their quantiles."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow_metadata.proto.v0 import statistics_pb2

_Numbers = npt.NDArray[np.float64]
_NUM_BINS = 10
# Larger than any float32. Infinite bounds are clipped to it, so that interpolation works.
_LARGEST = 1e39


def quantile_divergence(new: Any, good: Any) -> float:
    """Return the Jensen-Shannon divergence of two samples, binned at the deciles of `good`.

    TFDV uses bins of equal width, and one such bin contains nearly all values of a sample with a
    heavy tail. Here, the deciles of `good` are the bin edges, so that each bin has a tenth of it.
    A value that makes up a tenth or more of `good` has its own bin. There is one more bin on each
    side, for values outside the edges. A histogram bucket that contains the first or last edge
    counts as inside.

    Args:
        new: TFDV's `NumericStatistics` of a sample with values.
        good: TFDV's `NumericStatistics` of the sample to compare with.

    Returns:
        A number from 0 (equal) to 1 (nothing in common).

    References:
        Lin, "Divergence measures based on the Shannon entropy", 1991, with logarithms to base 2.
    """
    bins, measured = _Quantiles(good), _Quantiles(new)
    edges, counts = np.unique(bins.at(np.linspace(0, 1, _NUM_BINS + 1)), return_counts=True)
    shares = [_shares(sample, edges, counts > 1) for sample in (measured, bins)]
    middle = (shares[0] + shares[1]) / 2
    divergence = sum(_relative_entropy(share, middle) for share in shares) / 2
    return float(np.clip(divergence, 0.0, 1.0))


class _Quantiles:
    """A cumulative distribution, interpolated between the bounds of TFDV's quantiles histogram."""

    def __init__(self, statistics: Any) -> None:
        kind = statistics_pb2.Histogram.QUANTILES
        [histogram] = [found for found in statistics.histograms if found.type == kind]
        buckets = histogram.buckets
        bounds = [buckets[0].low_value, *(bucket.high_value for bucket in buckets)]
        self.bounds: _Numbers = np.clip(bounds, -_LARGEST, _LARGEST)
        heights = np.cumsum([0.0, *(bucket.sample_count for bucket in buckets)])
        self.heights: _Numbers = heights / heights[-1]

    def at(self, shares: _Numbers) -> _Numbers:
        """Return the quantiles at `shares`."""
        values: _Numbers = np.interp(shares, self.heights, self.bounds)
        return values

    def below(self, value: float) -> float:
        """Return the share of the sample that is less than `value`."""
        index = int(np.searchsorted(self.bounds, value, "left"))
        return self._height(value, index, index)

    def up_to(self, value: float) -> float:
        """Return the share of the sample that is at most `value`."""
        index = int(np.searchsorted(self.bounds, value, "right"))
        return self._height(value, index, index - 1)

    def before_bucket_of(self, value: float) -> float:
        """Return the share of the sample below the histogram bucket that contains `value`."""
        last = int(np.searchsorted(self.bounds, value, "right")) - 1
        first = int(np.searchsorted(self.bounds, value, "left"))
        return float(self.heights[max(min(last, first), 0)])

    def through_bucket_of(self, value: float) -> float:
        """Return the share of the sample up to the end of the bucket that contains `value`."""
        first = int(np.searchsorted(self.bounds, value, "left"))
        last = int(np.searchsorted(self.bounds, value, "right")) - 1
        return float(self.heights[min(max(first, last), len(self.heights) - 1)])

    def _height(self, value: float, index: int, bound: int) -> float:
        if 0 <= bound < len(self.bounds) and self.bounds[bound] == value:
            return float(self.heights[bound])
        if index in (0, len(self.bounds)):
            return float(index > 0)
        around = [index - 1, index]
        return float(np.interp(value, self.bounds[around], self.heights[around]))


def _shares(sample: _Quantiles, edges: _Numbers, is_value: npt.NDArray[np.bool_]) -> _Numbers:
    """Return the share of each bin: outside the edges, between them, and at edges in `is_value`."""
    cuts = []
    for index, (edge, alone) in enumerate(zip(edges, is_value, strict=True)):
        if alone:
            cuts += [sample.below(edge), sample.up_to(edge)]
        elif index == 0:
            cuts.append(sample.before_bucket_of(edge))
        elif index == len(edges) - 1:
            cuts.append(sample.through_bucket_of(edge))
        else:
            cuts.append(sample.below(edge))
    return np.diff([0.0, *cuts, 1.0])


def _relative_entropy(shares: _Numbers, middle: _Numbers) -> float:
    present = shares > 0
    return float(np.sum(shares[present] * np.log2(shares[present] / middle[present])))
