"""Settings of `two-tower skew`, without slow imports, because every command loads them."""

from collections.abc import Mapping

from pydantic import Field

from components.drift_gate.config import DistanceConfig
from models.settings import Settings


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
