"""Settings of the section `ranking`; importable without TensorFlow."""

from typing import Literal

from pydantic import Field

from models.settings import Settings


class RankingConfig(Settings):
    """The ranking stage: a second model that orders the candidates that the retriever finds."""

    enabled: bool = Field(
        False,
        description="Train a ranker, and serve its order if it is better than the retriever's.",
    )
    num_candidates: int = Field(
        200,
        ge=2,
        le=10_000,
        description="Number of candidates that the retriever gives to the ranker.",
    )
    model: Literal["dcn", "linear"] = Field(
        "dcn", description="dcn: feature crosses (DCN-v2) and a small MLP. linear: a weighted sum."
    )
    held_back_fraction: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="Share of the training events, the newest ones, that the ranker learns from.",
    )
    max_queries: int = Field(
        20_000, ge=100, description="Maximum number of events that the ranker learns from."
    )
    epochs: int = Field(6, ge=1, description="Number of passes over these events.")
    refit_retriever: bool = Field(
        True,
        description="Train the retriever twice: without the ranker's events for the ranker, then "
        "with all events for serving. false: serve the first one, which takes half the time.",
    )
