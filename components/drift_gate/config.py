"""Settings of comparisons: the differences to measure and their thresholds."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class DistanceConfig(Settings):
    """The largest allowed distance between two distributions of a feature."""

    l_infinity: float | None = Field(
        None, ge=0, le=1, description="categorical: largest change of one value's share."
    )
    jensen_shannon: float | None = Field(
        None, ge=0, le=1, description="Largest Jensen-Shannon divergence, from 0 to 1."
    )

    @model_validator(mode="after")
    def _one_is_given(self) -> "DistanceConfig":
        if (self.l_infinity is None) == (self.jensen_shannon is None):
            raise ValueError("give one of `l_infinity` and `jensen_shannon`")
        return self

    @property
    def kind(self) -> Literal["l_infinity", "jensen_shannon"]:
        """Name of the distance that is set."""
        return "jensen_shannon" if self.l_infinity is None else "l_infinity"

    @property
    def threshold(self) -> float:
        """The threshold that is set."""
        return self.l_infinity if self.l_infinity is not None else self.jensen_shannon or 0.0


class DriftConfig(Settings):
    """Thresholds for the comparison of a new span with the last accepted one."""

    action: Literal["off", "warn", "stop"] = Field(
        "off", description="Action on a value beyond its threshold; off: compare nothing."
    )
    distances: Mapping[str, DistanceConfig] = Field(
        default_factory=dict,
        description="Largest distance by feature, candidate ID, `rating` or `event_type`.",
    )
    min_events: float | None = Field(
        0.5, ge=0, description="Smallest number of events, as a share of the last accepted span's."
    )
    max_events: float | None = Field(
        2.0, ge=0, description="Largest number of events, as a share of the last accepted span's."
    )
    max_unknown: float | None = Field(
        0.3, ge=0, le=1, description="Largest share of events with previously unknown candidates."
    )
    max_missing: float | None = Field(
        0.2, ge=0, le=1, description="Largest change of the share of rows without a feature."
    )
    max_churn: float | None = Field(
        0.5, ge=0, le=1, description="Largest share of candidates that were added or removed."
    )


class SkewConfig(Settings):
    """Thresholds for the difference between logged requests and the training data."""

    distances: Mapping[str, DistanceConfig] = Field(
        default_factory=dict,
        description="Largest distance of each query feature; for histories, of the candidate ID.",
    )
    max_missing: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Largest difference in the share of missing values of a query feature.",
    )
    max_missing_history: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Largest difference between the shares of queries without a history.",
    )
    max_unknown: float | None = Field(
        0.1, ge=0, le=1, description="Largest share of history events with unknown candidates."
    )
    # New queries are normal, but if clients send IDs of another system, almost all are unknown.
    max_unknown_queries: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="Largest share of queries whose ID is unknown or missing; used with "
        "`model.query_id_embedding`.",
    )
