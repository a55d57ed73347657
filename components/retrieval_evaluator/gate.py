"""Whether a model may be served, and which threshold decided."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from components.retrieval_evaluator.comparison import MODEL, Comparison
from components.retrieval_evaluator.config import EvaluationConfig

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
    """The gate's decision with everything that led to it.

    Attributes:
        blessed: Whether the model may be served.
        checks: Every threshold.
        problems: What kept a threshold from being looked at at all.
    """

    blessed: bool
    checks: tuple[Check, ...]
    problems: tuple[str, ...] = field(default=())

    @property
    def refusals(self) -> list[str]:
        """The thresholds that were missed, as sentences."""
        return [*(str(check) for check in self.checks if not check.passed), *self.problems]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "blessed": self.blessed,
            "checks": [asdict(check) for check in self.checks],
            "problems": list(self.problems),
        }


def decide(
    metrics: Mapping[str, Mapping[str, float]],
    num_events: int,
    num_queries: int,
    config: EvaluationConfig,
    best_baseline: Comparison | None = None,
    last_blessed: Comparison | None = None,
    last_blessed_problem: str = "",
    last_blessed_advantage: str = "",
) -> Decision:
    """Holds what was measured against the thresholds; fails closed.

    A metric that is missing or not a number is not reached, an evaluation without a single
    held-out event blesses nothing, and neither does one in which the last blessed model is there
    and could not be asked.

    Args:
        metrics: By contender.
        num_events: Held-out events.
        num_queries: Queries that they are of. An interval over a few is none: it may have no width
            at all.
        config: The thresholds.
        best_baseline: The model beside the best baseline; None: there is no baseline.
        last_blessed: The model beside the last blessed one; None: there is none, or it could not
            be asked.
        last_blessed_problem: Why it could not be asked.
        last_blessed_advantage: Why it may have been trained on what it was asked. The comparison
            counts all the same; whoever reads that it was lost has to know.
    """
    model = metrics.get(MODEL, {})
    checks = [Check("number of held-out events", num_events, _AT_LEAST, 1, num_events >= 1)]
    for name, threshold in config.min_metrics.items():
        value = model.get(name, math.nan)
        checks.append(Check(name, value, _AT_LEAST, threshold, value >= threshold))
    if config.min_lift > 0:
        baselines = 0 if best_baseline is None else 1
        checks.append(Check("number of baselines", baselines, _AT_LEAST, 1, baselines >= 1))
        if best_baseline is not None:
            checks.append(_lower_bound(best_baseline, config.confidence))
    if (config.min_lift > 0 and best_baseline is not None) or (
        config.min_lift_over_last > 0 and last_blessed is not None
    ):
        enough = num_queries >= config.min_queries
        name = "number of held-out queries"
        checks.append(Check(name, num_queries, _AT_LEAST, config.min_queries, enough))
    problems = []
    if config.min_lift_over_last > 0:
        if last_blessed is not None:
            check = _lower_bound(last_blessed, config.confidence)
            if last_blessed_advantage:
                known = f"last_blessed may know the held-out events: {last_blessed_advantage}"
                check = replace(check, name=f"({known}) {check.name}")
            checks.append(check)
        if last_blessed_problem:
            problems.append(
                f"the last blessed model cannot be compared with: {last_blessed_problem}; "
                "`evaluation.min_lift_over_last: 0` blesses without the comparison"
            )
    passed = all(check.passed for check in checks) and not problems
    return Decision(passed, tuple(checks), tuple(problems))


def _lower_bound(comparison: Comparison, confidence: float) -> Check:
    interval = comparison.interval
    name = (
        f"{comparison.metric} less {comparison.factor:g} × {comparison.against} is "
        f"{interval.value:.4f}; its lower bound at {confidence:.3g} confidence"
    )
    return Check(name, interval.low, _ABOVE, 0.0, interval.low > 0.0)
