"""Settings of the search for better settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from models.settings import Settings
from models.training.holdout_metric import HoldoutMetric


class RangeConfig(Settings):
    """Numbers between two, both included."""

    min: float = Field(description="Least.")
    max: float = Field(description="Greatest.")
    scale: Literal["linear", "log"] = Field(
        "linear", description="log: as many trials from 1 to 10 as from 10 to 100."
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
    """Which settings are searched, how, and by what they are judged."""

    enabled: bool = Field(
        False, description="Search before fitting; the best values replace those of this file."
    )
    space: Mapping[str, Choices] = Field(
        default_factory=dict,
        description="By setting, such as model.dimension: a list of values, or a mapping with min "
        "and max, and `scale: log` for numbers of which the magnitude counts.",
    )
    algorithm: Literal["random", "bayesian", "hyperband"] = Field(
        "random",
        description="random; bayesian: each trial where a Gaussian process expects most; "
        "hyperband: many short fits, the better ones again with three times the epochs.",
    )
    max_trials: int = Field(20, ge=1, le=10_000, description="Fits at most.")
    metric: str | None = Field(
        None,
        description="hit_rate@K, mrr@K or ndcg@K on the timelines held out; "
        "`evaluation.baseline_metric` if absent.",
    )
    holdout_fraction: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="Share of the training timelines that a trial is judged on and not fitted on.",
    )
    seed: int = Field(42, ge=0, description="Of the choice of trials.")

    @model_validator(mode="after")
    def _is_complete(self) -> "TuningConfig":
        if self.enabled and not self.space:
            raise ValueError(
                "`tuning.enabled` needs a `tuning.space`, for example `{model.dimension: [32, 64]}`"
            )
        for name, choices in self.space.items():
            if not isinstance(choices, RangeConfig) and len(choices) < 2:
                raise ValueError(
                    f"`tuning.space.{name}` must list two values at least, got {list(choices)}; "
                    "what stays as it is belongs to its section"
                )
        if self.metric is not None:
            HoldoutMetric.parse(self.metric)
        return self
