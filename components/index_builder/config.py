"""Settings of the retrieval index."""

from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class IndexConfig(Settings):
    """Which index answers, how many candidates, how exact."""

    backend: Literal["auto", "exact", "scann", "partitioned"] = Field(
        "auto",
        description="auto: exact while it keeps to `latency_budget_ms`, else scann, which needs a "
        "server with ScaNN's operations, else partitioned. partitioned: approximate with "
        "TensorFlow's own operations, for every server.",
    )
    k: int = Field(100, ge=1, le=10_000, description="Candidates in an answer.")
    latency_budget_ms: float = Field(
        # Of two cores 1 ms searches about 50,000 64-dimensional vectors exactly.
        1.0,
        gt=0,
        description="auto: exact search is taken while the median query, alone, needs no longer; "
        "measured where the index is built.",
    )
    recall_target: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Least recall@k against exact search; the settings are tuned to it, and it is "
        "a gate.",
    )
    max_hit_rate_loss: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Gate: by how much the hit rate of held-out events among the k may be lower "
        "through the index than through exact search.",
    )
    num_recall_queries: int = Field(
        1000,
        ge=1,
        description="Real queries that judge the index; as many others tune it.",
    )
    leaves: int | None = Field(
        None, ge=1, description="scann, partitioned: clusters of the catalogue; tuned if absent."
    )
    leaves_to_search: int | None = Field(
        None, ge=1, description="scann, partitioned: clusters searched; tuned if absent."
    )
    reorder: int | None = Field(
        None, ge=1, description="scann: neighbours rescored exactly; tuned if absent."
    )
    int8_above_mb: int | None = Field(
        None,
        ge=0,
        description="scann: one byte a coordinate instead of four where the index would be larger "
        "than so many MB.",
    )
    filters: tuple[str, ...] = Field(
        (),
        description="Categorical candidate features that a request may filter by; each costs "
        "8 bytes a value and 8 a candidate.",
    )

    @model_validator(mode="after")
    def _settings_are_of_the_backend(self) -> "IndexConfig":
        without = {
            "exact": ("leaves", "leaves_to_search", "reorder", "int8_above_mb"),
            "partitioned": ("reorder", "int8_above_mb"),
        }
        for name in without.get(self.backend, ()):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` means nothing to `backend: {self.backend}`")
        return self

    @model_validator(mode="after")
    def _search_fits_the_leaves(self) -> "IndexConfig":
        if self.leaves and self.leaves_to_search and self.leaves_to_search > self.leaves:
            raise ValueError(
                f"`leaves_to_search` {self.leaves_to_search} exceeds `leaves` {self.leaves}"
            )
        if self.leaves_to_search and not self.leaves:
            raise ValueError("`leaves_to_search` means nothing without `leaves`")
        if self.reorder is not None and self.reorder < self.k:
            # ScaNN silently returns only `reorder` rows for a larger k.
            raise ValueError(f"`reorder` {self.reorder} must be at least `k` {self.k}")
        return self
