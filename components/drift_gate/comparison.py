"""Measure how much a span differs from an earlier one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.drift_gate.config import DistanceConfig, DriftConfig
from components.drift_gate.quantile_divergence import quantile_divergence
from components.drift_gate.span_profile import Profile, Statistics
from components.interactions.config import Source
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY, FeatureSpec


@dataclass(frozen=True)
class Finding:
    """A measured difference between two spans, and its threshold.

    Attributes:
        feature: Name of the feature, or `events` or `candidates`.
        measure: Description of the measured quantity, for messages.
        value: The measured value; NaN if it cannot be measured.
        relation: Whether the value must be at least or at most the threshold.
        threshold: The threshold.
        setting: Name of the setting that has the threshold.
        lacking: Reason for a value of NaN, for messages.
    """

    feature: str
    measure: str
    value: float
    relation: Literal["at least", "at most"]
    threshold: float
    setting: str
    lacking: str = "one of the two sides has no values"

    @property
    def is_exceeded(self) -> bool:
        """True if the value violates the threshold or is NaN."""
        if math.isnan(self.value):
            return True
        if self.relation == "at least":
            return self.value < self.threshold
        return self.value > self.threshold

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a dictionary for JSON."""
        content = {key: value for key, value in self.__dict__.items() if key != "lacking"}
        if math.isnan(self.value):
            content["value"] = None
        return {**content, "exceeded": self.is_exceeded, "text": str(self)}

    def __str__(self) -> str:
        must = f"{self.relation} {self.threshold:g} (`{self.setting}`)"
        if math.isnan(self.value):
            return (
                f"{self.feature}: {self.measure} must be {must}, but cannot be measured: "
                f"{self.lacking}"
            )
        but = "but must be" if self.is_exceeded else "as it must be"
        return f"{self.feature}: {self.measure} is {self.value:.4g}, {but} {must}"


def compare(
    new: Profile, good: Profile, config: DriftConfig, spec: FeatureSpec, *, catalogue: bool = True
) -> list[Finding]:
    """Measure each difference between a span and an accepted one that has a threshold.

    Only the newest span of a run has a catalogue of its own, so `catalogue` is false for others.
    """
    found = [
        *_events(new, good, config),
        *(_churn(new, good, config) if catalogue else ()),
        *_missing(new, good, config, spec),
        *_distances(new, good, config, spec),
    ]
    if catalogue:
        return found
    return [finding for finding in found if finding.feature not in spec.candidate_features]


def feature_distance(
    name: str, distance: DistanceConfig, new: Statistics | None, good: Statistics | None
) -> float:
    """Return the distance between two distributions of a feature; NaN if it is undefined.

    It is undefined if a distribution has no values, and for the L-infinity distance of numbers. The
    Jensen-Shannon divergence of numbers is `quantile_divergence`. TFDV computes other distances.

    References:
        TFDV, "Checking data skew and drift".
    """
    if new is None or good is None or not (has_values(name, new) and has_values(name, good)):
        return math.nan
    now, before = find_feature(name, new), find_feature(name, good)
    if all(feature.WhichOneof("stats") == "num_stats" for feature in (now, before)):
        if distance.l_infinity is not None:
            return math.nan
        return quantile_divergence(now.num_stats, before.num_stats)
    schema = schema_pb2.Schema()
    feature = schema.feature.add(name=name)
    is_text = now.type == statistics_pb2.FeatureNameStatistics.STRING
    feature.type = schema_pb2.BYTES if is_text else schema_pb2.FLOAT
    # TFDV only measures distances that have a threshold. `Finding` applies the configured one.
    if distance.l_infinity is not None:
        feature.drift_comparator.infinity_norm.threshold = 1.0
    else:
        feature.drift_comparator.jensen_shannon_divergence.threshold = 1.0
    anomalies = tfdv.validate_statistics(
        _only(name, new), schema, previous_statistics=_only(name, good)
    )
    for info in anomalies.drift_skew_info:
        if list(info.path.step) == [name]:
            for found in info.drift_measurements:
                return float(found.value)
    return math.nan


def find_feature(name: str, statistics: Statistics) -> Any:
    """Return the statistics of a feature, or None if there are none."""
    for dataset in statistics.datasets:
        for feature in dataset.features:
            if list(feature.path.step) == [name]:
                return feature
    return None


def has_values(name: str, statistics: Statistics | None) -> bool:
    """Return whether the statistics count any value of a feature."""
    feature = None if statistics is None else find_feature(name, statistics)
    return feature is not None and bool(_common(feature).tot_num_values)


def share_missing(name: str, statistics: Statistics) -> float:
    """Return the share of Examples without a value of a feature; 1 if there are no Examples."""
    feature = find_feature(name, statistics)
    num_examples = sum(dataset.num_examples for dataset in statistics.datasets)
    if feature is None or not num_examples:
        return 1.0
    # An Example has every key; a missing value is an empty list.
    present = sum(
        bucket.sample_count
        for bucket in _common(feature).num_values_histogram.buckets
        if bucket.high_value > 0
    )
    return 1 - float(present) / float(num_examples)


def _events(new: Profile, good: Profile, config: DriftConfig) -> Iterator[Finding]:
    ratio = new.num_events / good.num_events if good.num_events else math.nan
    volume = f"their number ({new.num_events:,} after {good.num_events:,}) as a share"
    if config.min_events is not None:
        yield Finding("events", volume, ratio, "at least", config.min_events, "drift.min_events")
    if config.max_events is not None:
        yield Finding("events", volume, ratio, "at most", config.max_events, "drift.max_events")
    if config.max_unknown is not None:
        unknown = ~np.isin(new.seen, good.known)
        total = new.seen_counts.sum()
        share = float(new.seen_counts[unknown].sum() / total) if total else math.nan
        measure = f"the share of events with {unknown.sum():,} previously unknown candidates"
        setting = "drift.max_unknown"
        yield Finding("candidates", measure, share, "at most", config.max_unknown, setting)


def _churn(new: Profile, good: Profile, config: DriftConfig) -> Iterator[Finding]:
    if config.max_churn is None:
        return
    both = len(np.intersect1d(new.known, good.known, assume_unique=True))
    either = len(new.known) + len(good.known) - both
    added, removed = len(new.known) - both, len(good.known) - both
    measure = f"churn ({added:,} added, {removed:,} removed, {both:,} kept)"
    churn = 1 - both / either if either else math.nan
    yield Finding("candidates", measure, churn, "at most", config.max_churn, "drift.max_churn")


def _missing(
    new: Profile, good: Profile, config: DriftConfig, spec: FeatureSpec
) -> Iterator[Finding]:
    if config.max_missing is None:
        return
    for name in (*spec.query_features, *spec.candidate_features, RATING_KEY, EVENT_TYPE_KEY):
        source = _source_of(name, spec)
        now, before = new.statistics.get(source), good.statistics.get(source)
        # Skip a feature that was not yet declared when one of the profiles was taken.
        if now is None or before is None or not (_is_known(name, now) and _is_known(name, before)):
            continue
        shares = share_missing(name, now), share_missing(name, before)
        measure = f"the change of missing values ({shares[0]:.1%} after {shares[1]:.1%})"
        value = abs(shares[0] - shares[1])
        yield Finding(name, measure, value, "at most", config.max_missing, "drift.max_missing")


def _is_known(name: str, statistics: Statistics) -> bool:
    has_examples = any(dataset.num_examples for dataset in statistics.datasets)
    return not has_examples or find_feature(name, statistics) is not None


def _distances(
    new: Profile, good: Profile, config: DriftConfig, spec: FeatureSpec
) -> Iterator[Finding]:
    for name, distance in config.distances.items():
        source = _source_of(name, spec)
        now, before = new.statistics.get(source), good.statistics.get(source)
        value = feature_distance(name, distance, now, before)
        sides = ((new, now), (good, before))
        empty = [profile.shown_span for profile, found in sides if not has_values(name, found)]
        is_linf = distance.l_infinity is not None
        measure = "L-infinity distance" if is_linf else "Jensen-Shannon divergence"
        setting = f"drift.distances.{name}.{'l_infinity' if is_linf else 'jensen_shannon'}"
        lacking = f"span {' and span '.join(empty)} has no values"
        yield Finding(name, measure, value, "at most", distance.threshold, setting, lacking)


def _source_of(name: str, spec: FeatureSpec) -> Source:
    if name in spec.query_features:
        return "queries"
    return "candidates" if name in spec.candidate_features else "interactions"


def _only(name: str, statistics: Statistics) -> Statistics:
    kept = Statistics()
    kept.CopyFrom(statistics)
    feature = find_feature(name, statistics)
    for dataset in kept.datasets:
        del dataset.features[:]
        dataset.features.append(feature)
    return kept


def _common(feature: Any) -> Any:
    return getattr(feature, feature.WhichOneof("stats")).common_stats
