"""How far a span is from another one, measure by measure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.drift_gate.config import DistanceConfig, DriftConfig
from components.drift_gate.feature_statistics import (
    Statistics,
    find_feature,
    has_values,
    share_missing,
)
from components.drift_gate.quantile_divergence import quantile_divergence
from components.drift_gate.span_profile import Profile
from components.interactions.config import Source
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY, FeatureSpec

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
        lacking: Where there is no value: what there was nothing of.
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
        """Whether the value is beyond the threshold; without a value it counts as such."""
        if math.isnan(self.value):
            return True
        if self.relation == "at least":
            return self.value < self.threshold
        return self.value > self.threshold

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        value = None if math.isnan(self.value) else self.value
        content = {**self.__dict__, "value": value}
        del content["lacking"]
        return {**content, "exceeded": self.is_exceeded, "text": str(self)}

    def __str__(self) -> str:
        """As a sentence for a person."""
        if math.isnan(self.value):
            return (
                f"{self.feature}: {self.measure} cannot be told: {self.lacking}; "
                f"`{self.setting}` {self.threshold:g}"
            )
        verb = f"not {self.relation}" if self.is_exceeded else self.relation
        return (
            f"{self.feature}: {self.measure} {self.value:.4g} is {verb} "
            f"`{self.setting}` {self.threshold:g}"
        )


def compare(
    new: Profile, good: Profile, config: DriftConfig, spec: FeatureSpec, *, catalogue: bool = True
) -> list[Finding]:
    """Measures a span against an earlier good one.

    Args:
        new: The span.
        good: The good one.
        config: With the thresholds; what has none is not measured.
        spec: The features.
        catalogue: Whether the catalogue is measured too: it is that of the newest span of a run.
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


def _events(new: Profile, good: Profile, config: DriftConfig) -> Iterator[Finding]:
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


def _churn(new: Profile, good: Profile, config: DriftConfig) -> Iterator[Finding]:
    if config.max_churn is not None:
        both = len(np.intersect1d(new.known, good.known, assume_unique=True))
        either = len(new.known) + len(good.known) - both
        measure = (
            f"churn ({len(new.known) - both:,} came, {len(good.known) - both:,} went, "
            f"{both:,} stayed)"
        )
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
        # What nobody looked at then has not become less.
        if now is None or before is None or not _is_known(name, now, before):
            continue
        shares = share_missing(name, now), share_missing(name, before)
        measure = f"missing in {shares[0]:.1%} after {shares[1]:.1%}; difference"
        value = abs(shares[0] - shares[1])
        yield Finding(name, measure, value, "at most", config.max_missing, "drift.max_missing")


def _is_known(name: str, now: Statistics, before: Statistics) -> bool:
    """Whether a feature was looked at on both sides, as far as there was anything to look at."""
    return all(
        not any(dataset.num_examples for dataset in side.datasets)
        or find_feature(name, side) is not None
        for side in (now, before)
    )


def _distances(
    new: Profile, good: Profile, config: DriftConfig, spec: FeatureSpec
) -> Iterator[Finding]:
    for name, distance in config.distances.items():
        source = _source_of(name, spec)
        now, before = new.statistics.get(source), good.statistics.get(source)
        value = feature_distance(name, distance, now, before)
        empty = [
            profile.shown_span
            for profile, statistics in ((new, now), (good, before))
            if not has_values(name, statistics)
        ]
        linf = distance.l_infinity is not None
        threshold = distance.l_infinity if linf else distance.jensen_shannon
        yield Finding(
            name,
            "L-infinity distance" if linf else "Jensen-Shannon divergence",
            value,
            "at most",
            threshold if threshold is not None else math.nan,
            f"drift.distances.{name}.{'l_infinity' if linf else 'jensen_shannon'}",
            f"span {' and span '.join(empty)} has no values",
        )


def _source_of(name: str, spec: FeatureSpec) -> Source:
    if name in spec.query_features:
        return "queries"
    return "candidates" if name in spec.candidate_features else "interactions"


def feature_distance(
    name: str, distance: DistanceConfig, new: Statistics | None, good: Statistics | None
) -> float:
    """Returns the distance of one feature's values.

    Args:
        name: Of the feature.
        distance: Which measure.
        new: TFDV's statistics.
        good: What they are held against.

    Returns:
        The distance; NaN where one of the two has no values.

    References:
        TFDV, "Checking data skew and drift": L-infinity over the shares of values for categorical
        features. Of numbers the Jensen-Shannon divergence is `quantile_divergence`.
    """
    if new is None or good is None or not (has_values(name, new) and has_values(name, good)):
        return math.nan
    now, before = find_feature(name, new), find_feature(name, good)
    numeric = [feature.WhichOneof("stats") == "num_stats" for feature in (now, before)]
    if all(numeric):
        if distance.l_infinity is not None:
            return math.nan
        return quantile_divergence(now.num_stats, before.num_stats)
    schema = schema_pb2.Schema()
    feature = schema.feature.add(name=name)
    feature.type = schema_pb2.BYTES if now.type == _BYTES else schema_pb2.FLOAT
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


def _only(name: str, statistics: Statistics) -> Statistics:
    kept = Statistics()
    kept.CopyFrom(statistics)
    feature = find_feature(name, statistics)
    for dataset in kept.datasets:
        del dataset.features[:]
        dataset.features.append(feature)
    return kept
