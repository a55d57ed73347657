"""Settings of the retrieval index."""

from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class IndexConfig(Settings):
    """Which index answers, how many candidates, how exact."""

    backend: Literal["auto", "exact", "scann"] = Field(
        "auto", description="auto: exact up to `max_exact_candidates`, else scann."
    )
    k: int = Field(100, ge=1, le=10_000, description="Candidates in an answer.")
    max_exact_candidates: int = Field(
        50_000,
        ge=1,
        description="Largest catalogue for `auto` = exact: 1.4 to 2.8 ms a question at 100,000 "
        "64-dimensional vectors on two cores.",
    )
    recall_target: float = Field(
        0.95, gt=0, le=1, description="Least recall@k against exact search; failing ends the run."
    )
    num_recall_queries: int = Field(
        1000, ge=1, description="Real queries on which the recall is measured."
    )
    leaves: int | None = Field(
        None, ge=1, description="scann: partitions; the square root of the catalogue if absent."
    )
    leaves_to_search: int | None = Field(
        None, ge=1, description="scann: partitions searched; a fifth of the leaves if absent."
    )
    reorder: int | None = Field(
        None, ge=1, description="scann: neighbours rescored exactly; 4 k, at least 250, if absent."
    )

    filters: tuple[str, ...] = Field(
        (),
        description="Categorical candidate features that a request may filter by; each costs "
        "8 bytes a value and 8 a candidate.",
    )

    @model_validator(mode="after")
    def _search_fits_the_leaves(self) -> "IndexConfig":
        if self.leaves and self.leaves_to_search and self.leaves_to_search > self.leaves:
            raise ValueError(
                f"`leaves_to_search` {self.leaves_to_search} exceeds `leaves` {self.leaves}"
            )
        if self.reorder is not None and self.reorder < self.k:
            # ScaNN silently returns only `reorder` rows for a larger k.
            raise ValueError(f"`reorder` {self.reorder} must be at least `k` {self.k}")
        return self
