"""Settings of serving skew: how far logged requests may be from what was trained on."""

from collections.abc import Mapping

from pydantic import Field

from components.drift_gate.config import DistanceConfig
from models.settings import Settings


class SkewConfig(Settings):
    """Thresholds of `two-tower skew`."""

    distances: Mapping[str, DistanceConfig] = Field(
        default_factory=dict,
        description="By query feature, or the candidate id for the histories: how far it may be.",
    )
    max_missing: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Greatest difference of the shares of queries that lack a feature.",
    )
    max_missing_history: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Greatest difference of the shares of queries that come without a history.",
    )
    max_unknown: float | None = Field(
        0.1, ge=0, le=1, description="Greatest share of history events with unknown candidates."
    )
    # New queries come every day; with the ids of another system nearly all are unknown.
    max_unknown_queries: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="With `model.query_id_embedding`: greatest share of queries whose id is "
        "unknown or missing.",
    )
