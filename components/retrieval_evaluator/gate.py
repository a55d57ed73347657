"""The gate: decides whether a model may be served, and explains a refusal."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from components.retrieval_evaluator.bootstrap import Comparison
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluate import Evaluation
from components.retrieval_evaluator.rankers import MODEL

_IMPROVE = "train longer (training.epochs), use a wider model (model.dimension) or more features"
# Advice for the setting of a failed check.
_ADVICE = {
    "evaluation.split": "hold out events with the settings of `split`",
    "evaluation.min_metrics": f"{_IMPROVE}, or lower evaluation.min_metrics",
    "evaluation.baselines": "add baselines, or turn the check off with evaluation.min_lift: 0",
    "evaluation.min_queries": "hold out events of more queries, or lower evaluation.min_queries",
    "evaluation.min_lift": f"{_IMPROVE}, or lower evaluation.min_lift",
    "evaluation.min_lift_over_last": f"{_IMPROVE}, or lower evaluation.min_lift_over_last",
}


@dataclass(frozen=True)
class Check:
    """One check: `value` must be `relation` (at least, above) `threshold`.

    Attributes:
        passed: Whether the check passed. A comparison must pass with statistical confidence.
        setting: Setting that defines the threshold.
        detail: Explanation of the threshold; empty if there is none.
    """

    name: str
    value: float
    relation: str
    threshold: float
    passed: bool
    setting: str
    detail: str = ""

    def __str__(self) -> str:
        """Return the check as a readable sentence."""
        value, threshold = (
            f"{number:,}" if isinstance(number, int) else f"{number:.4f}"
            for number in (self.value, self.threshold)
        )
        must = "and must" if self.passed else "but must"
        return f"{self.name} is {value}, {must} be {self.relation} {threshold}{self.detail}"


@dataclass(frozen=True)
class Decision:
    """The decision of the gate, with all checks and the problems that prevented a check."""

    blessed: bool
    checks: tuple[Check, ...]
    problems: tuple[str, ...] = ()

    @property
    def refusals(self) -> list[str]:
        """The failed checks and problems, then advice; empty if the model is blessed."""
        failed = [check for check in self.checks if not check.passed]
        lines = [*map(str, failed), *self.problems]
        for setting in dict.fromkeys(check.setting for check in failed):
            lines.append(f"To change this: {_ADVICE[setting]}.")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the decision as plain data for the report."""
        return {
            "blessed": self.blessed,
            "checks": [{**asdict(check), "text": str(check)} for check in self.checks],
            "problems": list(self.problems),
        }


def decide(evaluation: Evaluation, config: EvaluationConfig) -> Decision:
    """Check an evaluation against the thresholds, and return the decision.

    A metric that is missing or NaN fails its check. The gate also refuses an evaluation without
    held-out events, and one in which the last blessed model exists but could not be evaluated.
    """
    model = evaluation.metrics.get(MODEL, {})
    best, last = evaluation.best_baseline, evaluation.last_blessed
    checks = [_count("number of held-out events", evaluation.num_events, 1, "split")]
    for name, threshold in config.min_metrics.items():
        value = model.get(name, math.nan)
        passed = value >= threshold
        checks.append(Check(name, value, "at least", threshold, passed, "evaluation.min_metrics"))
    if config.min_lift > 0:
        checks.append(_count("number of baselines", int(best is not None), 1, "baselines"))
        if best is not None:
            checks.append(_comparison(evaluation, best, config, "min_lift"))
    if config.min_lift_over_last > 0 and last is not None:
        checks.append(_comparison(evaluation, last, config, "min_lift_over_last"))
    if any("lift" in check.setting for check in checks):
        # With few queries, an interval can have a width of zero.
        checks.append(
            _count(
                "number of held-out queries",
                evaluation.num_queries,
                config.min_queries,
                "min_queries",
            )
        )
    problems = []
    if config.min_lift_over_last > 0 and evaluation.last_blessed_problem:
        problems.append(
            "the last blessed model must be evaluated for comparison, but cannot be: "
            f"{evaluation.last_blessed_problem}; to bless without the comparison, set "
            "evaluation.min_lift_over_last: 0 for one run"
        )
    passed = all(check.passed for check in checks) and not problems
    return Decision(passed, tuple(checks), tuple(problems))


def _count(name: str, value: int, least: int, setting: str) -> Check:
    return Check(name, value, "at least", least, value >= least, f"evaluation.{setting}")


def _comparison(
    evaluation: Evaluation, comparison: Comparison, config: EvaluationConfig, setting: str
) -> Check:
    """Return a check that passes if the interval of the difference is entirely above 0."""
    metric, other, factor = comparison.metric, comparison.against, comparison.factor
    value = evaluation.metrics.get(MODEL, {}).get(metric, math.nan)
    others = evaluation.metrics.get(other, {}).get(metric, math.nan)
    is_last = setting == "min_lift_over_last"
    title = "the last blessed model" if is_last else f"{other}, the best baseline"
    interval = comparison.interval
    detail = (
        f" ({factor:g} × the {others:.4f} of {title}): the difference is {interval.value:.4f}, and "
        f"its {100 * config.confidence:g}% interval over {evaluation.num_queries:,} queries, "
        f"{interval.low:.4f} to {interval.high:.4f}, must be above 0"
    )
    if is_last and evaluation.last_blessed_advantage:
        # This does not change the result of the check, but readers should know about it.
        detail += (
            ". The last blessed model may have been trained on the held-out events: "
            f"{evaluation.last_blessed_advantage}"
        )
    return Check(
        f"{metric} of the model",
        value,
        "above",
        factor * others,
        interval.low > 0.0,
        f"evaluation.{setting}",
        detail,
    )
