"""Settings of the retrieval index."""

from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class IndexConfig(Settings):
    """Settings of the retrieval index."""

    backend: Literal["auto", "exact", "scann", "partitioned"] = Field(
        "auto",
        description="auto: exact within `latency_budget_ms`, else scann, else partitioned. scann: "
        "approximate, needs a server with ScaNN's operations. partitioned: approximate, runs on "
        "any TensorFlow server.",
    )
    k: int = Field(100, ge=1, le=10_000, description="Number of candidates in a response.")
    latency_budget_ms: float = Field(
        # On two cores, 1 ms is enough to search about 50,000 64-dimensional vectors exactly.
        1.0,
        gt=0,
        description="auto: maximum time of a single exact query, the fastest of 50, measured on "
        "the machine that builds the index.",
    )
    recall_target: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Minimum recall@k against exact search, both for tuning and for the gate.",
    )
    max_hit_rate_loss: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Gate: maximum loss of the held-out events' hit rate at k compared with exact "
        "search; with a ranking stage, that of the ranked list.",
    )
    num_recall_queries: int = Field(
        1000,
        ge=1,
        description="Number of real queries that measure the index; as many others tune it.",
    )
    leaves: int | None = Field(
        None,
        ge=1,
        description="scann, partitioned: number of clusters of the catalogue; tuned if absent.",
    )
    leaves_to_search: int | None = Field(
        None,
        ge=1,
        description="scann, partitioned: number of clusters searched per query; tuned if absent.",
    )
    reorder: int | None = Field(
        None, ge=1, description="scann: number of neighbours rescored exactly; tuned if absent."
    )
    int8_above_mb: int | None = Field(
        100,
        ge=0,
        description="scann: size in MB above which coordinates are stored in one byte, not four; "
        "null: never. With 1M candidates, this takes a third of the memory at the same recall and "
        "speed.",
    )
    filters: tuple[str, ...] = Field(
        (),
        description="Categorical candidate features that requests may filter by; each takes "
        "8 bytes per value and 8 per candidate.",
    )

    @model_validator(mode="after")
    def _settings_are_of_the_backend(self) -> "IndexConfig":
        without = {
            "exact": ("leaves", "leaves_to_search", "reorder", "int8_above_mb"),
            "partitioned": ("reorder", "int8_above_mb"),
        }
        for name in without.get(self.backend, ()):
            # A configuration that crosses the boundary of a component as JSON has all defaults.
            if getattr(self, name) not in (None, type(self).model_fields[name].default):
                raise ValueError(f"`{name}` must be absent with `backend: {self.backend}`")
        return self

    @model_validator(mode="after")
    def _search_fits_the_leaves(self) -> "IndexConfig":
        if self.leaves and self.leaves_to_search and self.leaves_to_search > self.leaves:
            raise ValueError(
                f"`leaves_to_search` must be at most `leaves` {self.leaves}, not "
                f"{self.leaves_to_search}"
            )
        if self.leaves_to_search and not self.leaves:
            raise ValueError("`leaves_to_search` requires `leaves`")
        if self.reorder is not None and self.reorder < self.k:
            # ScaNN silently returns only `reorder` candidates for a larger k.
            raise ValueError(f"`reorder` must be at least `k` {self.k}, not {self.reorder}")
        return self
