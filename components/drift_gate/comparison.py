"""How far a span is from another one, measure by measure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.drift_gate.config import DistanceConfig, DriftConfig
from components.drift_gate.span_profile import Profile, Statistics
from components.timeline_example_gen.source_columns import Source
from models.features import FeatureSpec

_Measurement = anomalies_pb2.DriftSkewInfo.Measurement
_BYTES = 2  # FeatureNameStatistics.STRING


@dataclass(frozen=True)
class Finding:
    """One measure.

    Attributes:
        feature: What was measured: a feature, `events` or `candidates`.
        measure: How.
        value: Measured; NaN where there was nothing to measure.
        relation: How it must be to the threshold.
        threshold: Of the configuration.
        setting: Its name there.
    """

    feature: str
    measure: str
    value: float
    relation: Literal["at least", "at most"]
    threshold: float
    setting: str

    @property
    def is_exceeded(self) -> bool:
        """Whether the value is beyond the threshold; without a value it counts as such."""
        if math.isnan(self.value):
            return True
        if self.relation == "at least":
            return self.value < self.threshold
        return self.value > self.threshold

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        value = None if math.isnan(self.value) else self.value
        return {**self.__dict__, "value": value, "exceeded": self.is_exceeded, "text": str(self)}

    def __str__(self) -> str:
        """As a sentence for a person."""
        verb = f"not {self.relation}" if self.is_exceeded else self.relation
        return (
            f"{self.feature}: {self.measure} {self.value:.4g} is {verb} "
            f"`{self.setting}` {self.threshold:g}"
        )


def compare(new: Profile, good: Profile, config: DriftConfig, spec: FeatureSpec) -> list[Finding]:
    """Measures a span against the last good one.

    Args:
        new: The newest span.
        good: The last good one.
        config: With the thresholds; what has none is not measured.
        spec: The features.
    """
    return [*_counts(new, good, config), *_distances(new, good, config, spec)]


def _counts(new: Profile, good: Profile, config: DriftConfig) -> Iterator[Finding]:
    ratio = new.num_events / good.num_events if good.num_events else math.nan
    volume = f"number ({new.num_events:,} after {good.num_events:,}) as a share"
    if config.min_events is not None:
        yield Finding("events", volume, ratio, "at least", config.min_events, "drift.min_events")
    if config.max_events is not None:
        yield Finding("events", volume, ratio, "at most", config.max_events, "drift.max_events")
    if config.max_unknown is not None:
        unknown = ~np.isin(new.seen, good.known)
        total = new.seen_counts.sum()
        share = float(new.seen_counts[unknown].sum() / total) if total else math.nan
        measure = f"share of events with one of {unknown.sum():,} unknown before"
        yield Finding(
            "candidates", measure, share, "at most", config.max_unknown, "drift.max_unknown"
        )
    if config.max_churn is not None:
        both = len(np.intersect1d(new.known, good.known, assume_unique=True))
        either = len(new.known) + len(good.known) - both
        measure = (
            f"churn ({len(new.known) - both:,} came, {len(good.known) - both:,} went, "
            f"{both:,} stayed)"
        )
        churn = 1 - both / either if either else math.nan
        yield Finding("candidates", measure, churn, "at most", config.max_churn, "drift.max_churn")


def _distances(
    new: Profile, good: Profile, config: DriftConfig, spec: FeatureSpec
) -> Iterator[Finding]:
    for name, distance in config.distances.items():
        source: Source = (
            "queries"
            if name in spec.query_features
            else "candidates"
            if name in spec.candidate_features
            else "interactions"
        )
        value = feature_distance(
            name, distance, new.statistics.get(source), good.statistics.get(source)
        )
        linf = distance.l_infinity is not None
        threshold = distance.l_infinity if linf else distance.jensen_shannon
        yield Finding(
            name,
            "L-infinity distance" if linf else "Jensen-Shannon divergence",
            value,
            "at most",
            threshold if threshold is not None else math.nan,
            f"drift.distances.{name}.{'l_infinity' if linf else 'jensen_shannon'}",
        )


def feature_distance(
    name: str, distance: DistanceConfig, new: Statistics | None, good: Statistics | None
) -> float:
    """Returns the distance of one feature's values as TFDV measures it.

    Args:
        name: Of the feature.
        distance: Which measure.
        new: TFDV's statistics.
        good: What they are held against.

    Returns:
        The distance; NaN where one of the two has no values.

    References:
        TFDV, "Checking data skew and drift": L-infinity over the shares of values for categorical
        features, an approximate Jensen-Shannon divergence of histograms for numeric ones.
    """
    if new is None or good is None or not (_has_values(name, new) and _has_values(name, good)):
        return math.nan
    schema = schema_pb2.Schema()
    feature = schema.feature.add(name=name)
    feature.type = schema_pb2.BYTES if _type_of(name, new) == _BYTES else schema_pb2.FLOAT
    comparator = feature.drift_comparator
    # TFDV measures where there is a threshold; what is beyond it is decided here.
    if distance.l_infinity is not None:
        comparator.infinity_norm.threshold = 1.0
    else:
        comparator.jensen_shannon_divergence.threshold = 1.0
    anomalies = tfdv.validate_statistics(
        _only(name, new), schema, previous_statistics=_only(name, good)
    )
    for info in anomalies.drift_skew_info:
        if list(info.path.step) == [name]:
            for found in info.drift_measurements:
                return float(found.value)
    return math.nan


def _feature(name: str, statistics: Statistics) -> Any:
    for dataset in statistics.datasets:
        for feature in dataset.features:
            if list(feature.path.step) == [name]:
                return feature
    return None


def _has_values(name: str, statistics: Statistics) -> bool:
    feature = _feature(name, statistics)
    if feature is None:
        return False
    common = getattr(feature, feature.WhichOneof("stats")).common_stats
    return bool(common.tot_num_values)


def _type_of(name: str, statistics: Statistics) -> int:
    return int(_feature(name, statistics).type)


def _only(name: str, statistics: Statistics) -> Statistics:
    kept = Statistics()
    kept.CopyFrom(statistics)
    feature = _feature(name, statistics)
    for dataset in kept.datasets:
        del dataset.features[:]
        dataset.features.append(feature)
    return kept
