"""Whether a model may be served, and which threshold decided."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.retrieval_evaluator.config import EvaluationConfig

MODEL = "model"
_AT_LEAST = "at least"
_ABOVE = "above"


@dataclass(frozen=True)
class Check:
    """One threshold: `value` must be `relation` (at least, above) `threshold`."""

    name: str
    value: float
    relation: str
    threshold: float
    passed: bool

    def __str__(self) -> str:
        """As a sentence for a person."""
        verb = self.relation if self.passed else f"not {self.relation}"
        return f"{self.name} {self.value:.4f} is {verb} {self.threshold:.4f}"


@dataclass(frozen=True)
class Decision:
    """The gate's decision with everything that led to it."""

    blessed: bool
    checks: tuple[Check, ...]

    @property
    def refusals(self) -> list[str]:
        """The thresholds that were missed, as sentences."""
        return [str(check) for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"blessed": self.blessed, "checks": [asdict(check) for check in self.checks]}


def decide(
    metrics: Mapping[str, Mapping[str, float]], num_events: int, config: EvaluationConfig
) -> Decision:
    """Holds the metrics by contender against the thresholds; fails closed.

    A metric that is missing or not a number is not reached, and an evaluation without a single
    held-out event blesses nothing.
    """
    model = metrics.get(MODEL, {})
    checks = [Check("number of held-out events", num_events, _AT_LEAST, 1, num_events >= 1)]
    for name, threshold in config.min_metrics.items():
        value = model.get(name, math.nan)
        checks.append(Check(name, value, _AT_LEAST, threshold, value >= threshold))
    if config.min_lift > 0:
        name = config.baseline_metric
        value = model.get(name, math.nan)
        baselines = len(metrics.keys() - {MODEL})
        checks.append(Check("number of baselines", baselines, _AT_LEAST, 1, baselines >= 1))
        for contender, values in metrics.items():
            if contender == MODEL:
                continue
            threshold = values.get(name, math.nan) * config.min_lift
            described = f"{name} beside {config.min_lift:g} × {contender}:"
            checks.append(Check(described, value, _ABOVE, threshold, value > threshold))
    return Decision(all(check.passed for check in checks), tuple(checks))
