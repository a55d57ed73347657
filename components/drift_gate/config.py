"""Settings of drift: by what a new span is held against the last good one, and how far."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class DistanceConfig(Settings):
    """How far the values of one feature may have moved."""

    l_infinity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="categorical: largest change of one value's share.",
    )
    jensen_shannon: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Jensen-Shannon divergence of the two distributions, from 0 to 1.",
    )

    @model_validator(mode="after")
    def _one_is_given(self) -> "DistanceConfig":
        if (self.l_infinity is None) == (self.jensen_shannon is None):
            raise ValueError("give one of `l_infinity` and `jensen_shannon`")
        return self


class DriftConfig(Settings):
    """What a new span is held against the last good one by."""

    action: Literal["off", "warn", "stop"] = Field(
        "off", description="What a value beyond its threshold does; off: nothing is compared."
    )
    distances: Mapping[str, DistanceConfig] = Field(
        default_factory=dict,
        description="By feature, the candidate id, `rating` or `event_type`: how far it may move.",
    )
    min_events: float | None = Field(
        0.5, ge=0, description="Least number of events, as a share of the last good span's."
    )
    max_events: float | None = Field(
        2.0, ge=0, description="Greatest number of events, as a share of the last good span's."
    )
    max_unknown: float | None = Field(
        0.3,
        ge=0,
        le=1,
        description="Greatest share of events with candidates that were not known before.",
    )
    max_missing: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Greatest difference of the shares of rows that lack a feature.",
    )
    max_churn: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="Greatest share of candidates that came or went, among those before and now.",
    )
