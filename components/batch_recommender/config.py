"""Settings of batch recommendations."""

from collections.abc import Mapping

from pydantic import Field

from models.settings import Settings


class BatchConfig(Settings):
    """Recommendations for all known queries in files, after each push."""

    enabled: bool = Field(False, description="Write the recommendations in every run that pushes.")
    k: int = Field(50, ge=1, description="Number of candidates for each query, up to `index.k`.")
    exclude_seen: bool = Field(True, description="Leave out the candidates of a query's history.")
    filters: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Allowed values by candidate feature; the features must be in `index.filters`.",
    )
