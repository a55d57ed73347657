"""Jensen-Shannon divergence of two samples of numbers of which quantiles are kept."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow_metadata.proto.v0 import statistics_pb2

_Numbers = npt.NDArray[np.float64]
_NUM_BINS = 10
# Beyond float32, so that an infinite value still has a place on the line.
_LARGEST = 1e39


def quantile_divergence(new: Any, good: Any) -> float:
    """Returns the Jensen-Shannon divergence of the shares between the tenths of one sample.

    Bins of equal width, which TFDV takes, put all but the outliers of a heavy tail into one bin.
    Here the deciles of the good sample are the bins, so each holds as much of it; a value that
    takes a tenth or more has a bin of its own. What lies beyond all of them counts as apart, save
    the end of a tail that begins among them.

    Args:
        new: TFDV's `NumericStatistics` of a sample with values.
        good: Of the sample that it is held against.

    Returns:
        From 0, the same, to 1, nothing in common.

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
    """A distribution, linear between the bounds of TFDV's quantiles histogram."""

    def __init__(self, statistics: Any) -> None:
        [histogram] = [
            found
            for found in statistics.histograms
            if found.type == statistics_pb2.Histogram.QUANTILES
        ]
        buckets = histogram.buckets
        bounds = [buckets[0].low_value, *(bucket.high_value for bucket in buckets)]
        self.bounds: _Numbers = np.clip(bounds, -_LARGEST, _LARGEST)
        heights = np.cumsum([0.0, *(bucket.sample_count for bucket in buckets)])
        self.heights: _Numbers = heights / heights[-1]

    def at(self, shares: _Numbers) -> _Numbers:
        """Returns the values below which these shares lie."""
        values: _Numbers = np.interp(shares, self.heights, self.bounds)
        return values

    def below(self, value: float) -> float:
        """Returns the share below a value."""
        place = int(np.searchsorted(self.bounds, value, "left"))
        return self._height(value, place, place)

    def up_to(self, value: float) -> float:
        """Returns the share up to a value, with it."""
        place = int(np.searchsorted(self.bounds, value, "right"))
        return self._height(value, place, place - 1)

    def before_bucket_of(self, value: float) -> float:
        """Returns the share below the bucket that a value lies in."""
        place = int(np.searchsorted(self.bounds, value, "right")) - 1
        first = int(np.searchsorted(self.bounds, value, "left"))
        return float(self.heights[max(min(place, first), 0)])

    def through_bucket_of(self, value: float) -> float:
        """Returns the share up to the end of the bucket that a value lies in."""
        place = int(np.searchsorted(self.bounds, value, "left"))
        last = int(np.searchsorted(self.bounds, value, "right")) - 1
        return float(self.heights[min(max(place, last), len(self.heights) - 1)])

    def _height(self, value: float, place: int, bound: int) -> float:
        if 0 <= bound < len(self.bounds) and self.bounds[bound] == value:
            return float(self.heights[bound])
        if place == 0:
            return 0.0
        if place == len(self.bounds):
            return 1.0
        return float(
            np.interp(value, self.bounds[[place - 1, place]], self.heights[[place - 1, place]])
        )


def _shares(sample: _Quantiles, edges: _Numbers, is_value: npt.NDArray[np.bool_]) -> _Numbers:
    """Returns the share in each bin: between two edges, at edges that are values, and outside."""
    cuts = []
    for place, (edge, alone) in enumerate(zip(edges, is_value, strict=True)):
        if alone:
            cuts += [sample.below(edge), sample.up_to(edge)]
        elif place == 0:
            cuts.append(sample.before_bucket_of(edge))
        elif place == len(edges) - 1:
            cuts.append(sample.through_bucket_of(edge))
        else:
            cuts.append(sample.below(edge))
    return np.diff([0.0, *cuts, 1.0])


def _relative_entropy(shares: _Numbers, middle: _Numbers) -> float:
    held = shares > 0
    return float(np.sum(shares[held] * np.log2(shares[held] / middle[held])))
