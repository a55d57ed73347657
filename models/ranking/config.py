"""Settings of the section `ranking`; importable without TensorFlow."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from models.settings import Settings

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# The settings that determine the weights of a ranker.
ARCHITECTURE = {"model", "cross_layers", "hidden_layers", "embedding_dimension"}
# Outputs of every model with a ranking stage.
_OUTPUTS = ("candidate_ids", "scores", "retrieval_scores")


class TaskConfig(Settings):
    """A task of the ranker besides the next event: a property of an event with a candidate."""

    loss: Literal["squared_error", "squared_log_error", "binary"] = Field(
        "squared_error",
        description="squared_error: predict `column`. squared_log_error: predict it on a "
        "logarithmic scale, for example a time in seconds. binary: predict the probability of "
        "`event_type`.",
    )
    column: str | None = Field(
        None,
        description="Column of the events that has the labels, such as a dwell time. Events may "
        "lack it. Default: `events.rating`.",
    )
    event_type: str | None = Field(
        None, description="binary: the value of `events.event_type` to predict, such as purchase."
    )
    weight: float = Field(
        1.0, ge=0, le=100, description="Weight of the loss; the next event has the weight 1."
    )
    score_weight: float = Field(
        0.0,
        ge=-100,
        le=100,
        description="Weight of the prediction in the served scores, where the score of the next "
        "event has the weight 1. A probability counts as its logit, others as z-scores.",
    )

    @model_validator(mode="after")
    def _loss_fits_the_label(self) -> "TaskConfig":
        if (self.loss == "binary") != (self.event_type is not None):
            raise ValueError(
                f"`loss: binary` and `event_type` belong together, got `loss: {self.loss}` and "
                f"`event_type: {self.event_type}`; set both or neither"
            )
        if self.event_type is not None and self.column is not None:
            raise ValueError(
                f"`loss: binary` predicts `event_type`, got `column: {self.column}`; remove one"
            )
        return self


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
    successors: int = Field(
        0,
        ge=0,
        le=50,
        description="Number of candidates that are ranked too because they most often followed the "
        "newest event of the history.",
    )
    model: Literal["dcn", "linear"] = Field(
        "dcn", description="dcn: feature crosses (DCN-v2) and a small MLP. linear: a weighted sum."
    )
    cross_layers: int = Field(2, ge=1, le=8, description="dcn: number of cross layers.")
    hidden_layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64, 32), description="dcn: widths of the ReLU layers of the MLP, after the crosses."
    )
    embedding_dimension: int = Field(
        4, ge=1, le=64, description="Dimension of the embedding of each declared feature."
    )
    held_back_fraction: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="Share of the training events that the ranker learns from: the newest ones or, "
        "with a random split, any.",
    )
    max_queries: int = Field(
        20_000, ge=100, description="Maximum number of events that the ranker learns from."
    )
    epochs: int = Field(6, ge=1, description="Number of passes over these events.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="First learning rate. Default: 0.01 for dcn, 0.03 for linear.",
    )
    weight_decay: float = Field(0.01, ge=0, le=100, description="Decoupled weight decay.")
    feature_dropout: float = Field(
        0.5, ge=0, lt=1, description="Probability of hiding a declared feature in training."
    )
    refit_retriever: bool = Field(
        True,
        description="Train the retriever twice: without the ranker's events for the ranker, then "
        "with all events for serving. false: serve the first one, which takes half the time.",
    )
    tasks: Mapping[str, TaskConfig] = Field(
        default_factory=dict,
        description="What the ranker predicts of an event with a candidate, by the name of the "
        "served output, for example `{rating: {loss: squared_error}}` or `{purchase: {loss: "
        "binary, event_type: purchase}}`.",
    )

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels that are neither the rating nor the event type."""
        columns = {task.column for task in self.tasks.values() if task.column is not None}
        return tuple(sorted(columns)) if self.enabled else ()

    @field_validator("tasks")
    @classmethod
    def _names_are_outputs(cls, tasks: Mapping[str, TaskConfig]) -> Mapping[str, TaskConfig]:
        for name in tasks:
            if not _NAME.fullmatch(name) or name in _OUTPUTS:
                raise ValueError(
                    "the name of a task must consist of letters, digits and _, start with a "
                    f"letter, and not be {', '.join(_OUTPUTS)}, got {name!r}"
                )
        return tasks
