"""Compare two sets of data by their TFDV statistics, and judge each difference by a threshold."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.drift_gate.config import DistanceConfig
from components.interactions.stable_hash import Counts, Hashes

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
_Numbers = npt.NDArray[np.float64]

_NUM_BINS = 10
# Larger than any float32. Infinite bounds are clipped to it, so that interpolation works.
_LARGEST = 1e39


@dataclass(frozen=True)
class Finding:
    """A measured difference, and its threshold.

    Attributes:
        feature: Name of the feature, or `events` or `candidates`.
        measure: Description of the measured quantity, for messages.
        value: The measured value; NaN if it cannot be measured.
        threshold: The threshold; None if the value is only reported.
        setting: Name of the setting that has the threshold.
        relation: Whether the value must be at least or at most the threshold.
        lacking: Reason for a value of NaN, for messages.
    """

    feature: str
    measure: str
    value: float
    threshold: float | None
    setting: str
    relation: Literal["at least", "at most"] = "at most"
    lacking: str = ""

    @property
    def is_exceeded(self) -> bool:
        """True if there is a threshold, and the value violates it or is NaN."""
        if self.threshold is None:
            return False
        if self.relation == "at least":
            return not self.value >= self.threshold
        return not self.value <= self.threshold

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a dictionary for JSON."""
        content = {key: value for key, value in self.__dict__.items() if key != "lacking"}
        if math.isnan(self.value):
            content["value"] = None
        return {**content, "exceeded": self.is_exceeded, "text": str(self)}

    def __str__(self) -> str:
        about, is_unknown = f"{self.feature}: {self.measure}", math.isnan(self.value)
        if self.threshold is None:
            return f"{about} {'cannot be measured' if is_unknown else f'{self.value:.4g}'}"
        must = f"{self.relation} {self.threshold:g} (`{self.setting}`)"
        if is_unknown:
            return f"{about} must be {must}, but cannot be measured: {self.lacking}"
        but = "but must be" if self.is_exceeded else "as it must be"
        return f"{about} is {self.value:.4g}, {but} {must}"


@dataclass(frozen=True)
class Sides:
    """The two sets of data in a comparison: statistics, and names for messages."""

    new: Statistics | None
    reference: Statistics | None
    new_name: str
    reference_name: str

    def distance(
        self, feature: str, config: DistanceConfig, setting: str, *, is_judged: bool = True
    ) -> Finding:
        """Measure the distance between the distributions of a feature.

        It is NaN if a distribution has no values, and for the L-infinity distance of numbers. The
        Jensen-Shannon divergence of numbers is `quantile_divergence`.

        References:
            TFDV, "Checking data skew and drift".
        """
        sides = ((self.new_name, self.new), (self.reference_name, self.reference))
        empty = [name for name, found in sides if not _has_values(feature, found)]
        value, lacking = math.nan, f"there are no values in {' or '.join(empty)}"
        if self.new is not None and self.reference is not None and not empty:
            now, before = _feature(feature, self.new), _feature(feature, self.reference)
            value = _distance(config.kind, now, before)
            lacking = f"`{config.kind}` needs categories on both sides, but there are numbers"
        name = "L-infinity distance" if config.kind == "l_infinity" else "Jensen-Shannon divergence"
        threshold = config.threshold if is_judged else None
        setting = f"{setting}.{feature}.{config.kind}"
        return Finding(feature, name, value, threshold, setting, lacking=lacking)

    def both_have(self, feature: str) -> bool:
        """Return whether the feature was declared on both sides; data without Examples counts."""
        return all(
            statistics is not None
            and (
                not any(dataset.num_examples for dataset in statistics.datasets)
                or _feature(feature, statistics) is not None
            )
            for statistics in (self.new, self.reference)
        )

    def missing(
        self, feature: str, threshold: float | None, setting: str, shown: str = ""
    ) -> Finding:
        """Measure the change of the share of Examples without a feature, shown as `shown`."""
        now, before = share_missing(feature, self.new), share_missing(feature, self.reference)
        measure = (
            f"the change of missing values ({now:.1%} in {self.new_name}, {before:.1%} in "
            f"{self.reference_name})"
        )
        return Finding(shown or feature, measure, abs(now - before), threshold, setting)


def compare_known(
    feature: str,
    measure: str,
    seen: tuple[Hashes, Counts],
    known: Hashes,
    threshold: float | None,
    setting: str,
    lacking: str = "",
) -> Finding:
    """Measure the share of IDs, weighted by their counts, that are not known.

    `measure` contains a placeholder for the number of distinct unknown IDs.
    """
    ids, counts = seen
    unknown = ~np.isin(ids, known)
    share = float(counts[unknown].sum() / counts.sum()) if len(ids) else math.nan
    measure = measure.format(f"{unknown.sum():,}")
    return Finding(feature, measure, share, threshold, setting, lacking=lacking)


def share_missing(name: str, statistics: Statistics | None) -> float:
    """Return the share of Examples without a value of a feature; 1 if there are no Examples."""
    feature = _feature(name, statistics)
    if statistics is None or feature is None:
        return 1.0
    # An Example has every key; a missing value is an empty list.
    present = sum(
        bucket.sample_count
        for bucket in _common(feature).num_values_histogram.buckets
        if bucket.high_value > 0
    )
    num_examples = sum(dataset.num_examples for dataset in statistics.datasets)
    return 1 - float(present) / num_examples if num_examples else 1.0


def quantile_divergence(new: Any, reference: Any) -> float:
    """Return the Jensen-Shannon divergence of two samples, from 0 (equal) to 1, by deciles.

    TFDV uses bins of equal width, and one such bin contains nearly all values of a sample with a
    heavy tail. Here, the deciles of `reference` are the bin edges, so each bin has a tenth of it.
    A value that makes up a tenth or more of `reference` has its own bin. There is one more bin on
    each side, for values outside the edges. A histogram bucket that contains the first or last edge
    counts as inside. `new` and `reference` are TFDV's statistics of samples with values.
    """
    samples = _cumulative(new), _cumulative(reference)
    bounds, heights = samples[1]
    deciles = np.interp(np.linspace(0, 1, _NUM_BINS + 1), heights, bounds)
    edges, counts = np.unique(deciles, return_counts=True)
    return _divergence(*(_shares(*sample, edges, counts > 1) for sample in samples))


def _cumulative(statistics: Any) -> tuple[_Numbers, _Numbers]:
    """Return the bounds of TFDV's quantiles histogram, and the shares of values up to each."""
    kind = statistics_pb2.Histogram.QUANTILES
    [histogram] = [found for found in statistics.histograms if found.type == kind]
    buckets = histogram.buckets
    bounds = [buckets[0].low_value, *(bucket.high_value for bucket in buckets)]
    heights = np.cumsum([0.0, *(bucket.sample_count for bucket in buckets)])
    return np.clip(bounds, -_LARGEST, _LARGEST), heights / heights[-1]


def _shares(
    bounds: _Numbers, heights: _Numbers, edges: _Numbers, is_value: npt.NDArray[np.bool_]
) -> _Numbers:
    """Return the share of each bin: outside the edges, between them, and at edges in `is_value`."""
    # Bounds repeat at a frequent value, so the cumulative share jumps there.
    below = np.interp(np.nextafter(edges, -np.inf), bounds, heights)
    up_to = np.interp(np.nextafter(edges, np.inf), bounds, heights)
    left = np.searchsorted(bounds, edges, "left")
    right = np.searchsorted(bounds, edges, "right") - 1
    first, last = np.arange(len(edges)) == 0, np.arange(len(edges)) == len(edges) - 1
    before_bucket = heights[np.maximum(np.minimum(left, right), 0)]
    through_bucket = heights[np.minimum(np.maximum(left, right), len(heights) - 1)]
    lower = np.where(first & ~is_value, before_bucket, below)
    lower = np.where(last & ~first & ~is_value, through_bucket, lower)
    cuts = np.stack([lower, up_to], axis=1)[np.stack([np.ones_like(is_value), is_value], axis=1)]
    return np.diff([0.0, *cuts, 1.0])


def _distance(kind: str, new: Any, reference: Any) -> float:
    are_numbers = [side.WhichOneof("stats") == "num_stats" for side in (new, reference)]
    if all(are_numbers) and kind == "jensen_shannon":
        return quantile_divergence(new.num_stats, reference.num_stats)
    if any(are_numbers):
        return math.nan
    counts = [
        {bucket.label: bucket.sample_count for bucket in side.string_stats.rank_histogram.buckets}
        for side in (new, reference)
    ]
    values = sorted(counts[0].keys() | counts[1].keys())
    found = [np.array([side.get(value, 0.0) for value in values]) for side in counts]
    now, before = (side / side.sum() for side in found)
    return float(np.abs(now - before).max()) if kind == "l_infinity" else _divergence(now, before)


def _divergence(new: _Numbers, reference: _Numbers) -> float:
    """Return the Jensen-Shannon divergence of two distributions over the same bins, from 0 to 1.

    References:
        Lin, "Divergence measures based on the Shannon entropy", 1991, with logarithms to base 2.
    """
    middle = (new + reference) / 2
    entropies = [
        np.sum(shares[shares > 0] * np.log2(shares[shares > 0] / middle[shares > 0]))
        for shares in (new, reference)
    ]
    return float(np.clip(sum(entropies) / 2, 0.0, 1.0))


def _feature(name: str, statistics: Statistics | None) -> Any:
    datasets = () if statistics is None else statistics.datasets
    features = (feature for dataset in datasets for feature in dataset.features)
    return next((feature for feature in features if list(feature.path.step) == [name]), None)


def _has_values(name: str, statistics: Statistics | None) -> bool:
    feature = _feature(name, statistics)
    return feature is not None and bool(_common(feature).tot_num_values)


def _common(feature: Any) -> Any:
    return getattr(feature, feature.WhichOneof("stats")).common_stats
