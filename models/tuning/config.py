"""Settings of the section `tuning`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from models.config import HoldoutMetric
from models.settings import Settings


class RangeConfig(Settings):
    """Numbers between two limits, which are included."""

    min: float = Field(description="Smallest value.")
    max: float = Field(description="Largest value.")
    scale: Literal["linear", "log"] = Field(
        "linear", description="log: as many trials between 1 and 10 as between 10 and 100."
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> "RangeConfig":
        if self.min >= self.max:
            raise ValueError(f"`min` {self.min:g} must be below `max` {self.max:g}")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"`scale: log` needs a `min` above 0, got {self.min:g}")
        return self


def _kind_of_choices(value: Any) -> str:
    return "range" if isinstance(value, dict | RangeConfig) else "values"


Choices = Annotated[
    Annotated[tuple[Any, ...], Tag("values")] | Annotated[RangeConfig, Tag("range")],
    Discriminator(_kind_of_choices),
]


class TuningConfig(Settings):
    """Search space, algorithm and metric of the hyperparameter search."""

    enabled: bool = Field(
        False, description="Search before training; the best values replace the configured ones."
    )
    space: Mapping[str, Choices] = Field(
        default_factory=dict,
        description="Values by setting, such as model.dimension: a list, or a mapping with min, "
        "max and optionally `scale: log`.",
    )
    algorithm: Literal["random", "bayesian", "hyperband"] = Field(
        "random",
        description="bayesian: a Gaussian process chooses each trial. hyperband: many short "
        "trials, the better ones repeated with three times the epochs.",
    )
    max_trials: int = Field(20, ge=1, le=10_000, description="Maximum number of trials.")
    metric: str | None = Field(
        None,
        description="hit_rate@K, mrr@K or ndcg@K on held-out training timelines. Default: "
        "`evaluation.baseline_metric`.",
    )
    holdout_fraction: float = Field(
        0.1, gt=0, le=0.5, description="Share of the training timelines to measure trials on."
    )
    seed: int = Field(42, ge=0, description="Seed of the choice of trials.")

    @model_validator(mode="after")
    def _is_complete(self) -> "TuningConfig":
        if self.enabled and not self.space:
            raise ValueError(
                "`tuning.enabled` needs a `tuning.space`, for example `{model.dimension: [32, 64]}`"
            )
        for name, choices in self.space.items():
            if not isinstance(choices, RangeConfig) and len(choices) < 2:
                raise ValueError(
                    f"`tuning.space.{name}` must list at least two values, got {list(choices)}; "
                    "set a fixed value in its own section"
                )
        if self.metric is not None:
            HoldoutMetric.parse(self.metric)
        return self
