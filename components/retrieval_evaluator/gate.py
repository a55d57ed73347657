"""The gate: decides whether a model may be served, and explains a refusal."""

import math
from dataclasses import dataclass
from typing import Any

from components.gates import Check
from components.retrieval_evaluator.bootstrap import Comparison
from components.retrieval_evaluator.config import MAX_CHANCE, EvaluationConfig
from components.retrieval_evaluator.evaluate import Evaluation
from components.retrieval_evaluator.rankers import LAST_BLESSED, MODEL

_IMPROVE = "train longer (training.epochs), use a wider model (model.dimension) or more features"
# If these checks fail, the model must become better.
_IMPROVABLE = ("evaluation.min_metrics", "evaluation.min_lift", "evaluation.min_lift_over_last")
_KS = "evaluation.ks"
# Advice for the settings of other failed checks.
_ADVICE = {
    "evaluation.split": "hold out events with the settings of `split`",
    _KS: "add a smaller cutoff to evaluation.ks, or let queries choose from more candidates: use a "
    "larger catalogue or, if queries repeat candidates, evaluation.exclude_seen: false",
    "evaluation.baselines": "add baselines, or turn the check off with evaluation.min_lift: 0",
    "evaluation.min_queries": "hold out events of more queries, or lower evaluation.min_queries",
    "evaluation.max_overlap": "let the history matter more (model.history_encoder, fewer query "
    "features, or training.epochs), or raise evaluation.max_overlap",
    "evaluation.min_cold_share": "declare features that describe new candidates "
    "(candidates.features), raise training.feature_dropout, or lower evaluation.min_cold_share",
    "evaluation.min_coverage_over_last": "compare the data and the configuration with those of the "
    "last blessed model, or lower evaluation.min_coverage_over_last",
    "evaluation.max_popularity_shift": "compare the data and the configuration with those of the "
    "last blessed model, or raise evaluation.max_popularity_shift",
}


@dataclass(frozen=True)
class Decision:
    """The decision of the gate, with all checks and the problems that prevented a check."""

    checks: tuple[Check, ...]
    problems: tuple[str, ...] = ()

    @property
    def blessed(self) -> bool:
        """True if all checks passed and no problem prevented one."""
        return all(check.passed for check in self.checks) and not self.problems

    @property
    def refusals(self) -> list[str]:
        """The failed checks and problems, then advice; empty if the model is blessed."""
        failed = [check for check in self.checks if not check.passed]
        lines = [*map(str, failed), *self.problems]
        if failed:
            settings = list(dict.fromkeys(check.setting for check in failed))
            lower = " and ".join(setting for setting in settings if setting in _IMPROVABLE)
            advice = [f"{_IMPROVE}, or lower {lower}"] if lower else []
            advice += [_ADVICE[setting] for setting in settings if setting not in _IMPROVABLE]
            lines.append(f"To change this: {'; '.join(advice)}.")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the decision as plain data for the report."""
        return {
            "blessed": self.blessed,
            "checks": [check.to_json() for check in self.checks],
            "problems": list(self.problems),
        }


def decide(evaluation: Evaluation, config: EvaluationConfig) -> Decision:
    """Check an evaluation against the thresholds, and return the decision.

    A metric that is missing or NaN fails its check. The gate also refuses an evaluation without
    held-out events, and one in which the last blessed model exists but could not be evaluated.
    """
    best = evaluation.best_baseline
    checks = [_count("held-out events", evaluation.num_events, 1, "split")]
    for name, threshold in config.min_metrics.items():
        value = evaluation.metrics.get(MODEL, {}).get(name, math.nan)
        passed = value >= threshold
        checks.append(Check(name, value, "at least", threshold, "evaluation.min_metrics", passed))
        chance = evaluation.chance.get(name, math.nan)
        if threshold > 0 and chance >= MAX_CHANCE:
            passed = threshold > chance
            title, detail = f"the minimum of {name}", ", which a random order reaches"
            checks.append(Check(title, threshold, "above", chance, _KS, passed, detail))
    comparisons = []
    if config.min_lift > 0:
        checks.append(_count("baselines", int(best is not None), 1, "baselines"))
        comparisons.append((best, "min_lift"))
    if config.min_lift_over_last > 0:
        comparisons.append((evaluation.last_blessed, "min_lift_over_last"))
    for comparison, setting in comparisons:
        if comparison is not None and evaluation.num_events:
            checks.append(_lift(evaluation, comparison, config, f"evaluation.{setting}"))
    if config.min_lift > 0 or any(comparison is not None for comparison, _ in comparisons):
        # With few queries, an interval can have a width of zero.
        number, least = evaluation.num_queries, config.min_queries
        checks.append(_count("held-out queries", number, least, "min_queries"))
        title = f"the chance level of {evaluation.gate_metric}"
        chance, detail = evaluation.chance[evaluation.gate_metric], f": {evaluation.chance_text}"
        passed = chance < MAX_CHANCE
        checks.append(Check(title, chance, "below", MAX_CHANCE, _KS, passed, detail))
    if evaluation.num_events:
        checks += _behaviour(evaluation, config)
    problems: tuple[str, ...] = ()
    if config.min_lift_over_last > 0 and evaluation.last_blessed_problem:
        problems = (
            "the last blessed model must be evaluated for comparison, but cannot be: "
            f"{evaluation.last_blessed_problem}; to bless without the comparison, set "
            "evaluation.min_lift_over_last: 0 for one run",
        )
    return Decision(tuple(checks), problems)


def _behaviour(evaluation: Evaluation, config: EvaluationConfig) -> list[Check]:
    """Return the checks of the lists that the model returns, regardless of the right answers."""
    k = evaluation.gate_metric.partition("@")[2]
    model, last = (evaluation.metrics.get(name, {}) for name in (MODEL, LAST_BLESSED))
    checks = []

    def check(name: str, value: float, relation: str, limit: float, setting: str, why: str) -> None:
        passed = value <= limit if relation == "at most" else value >= limit
        checks.append(
            Check(name, value, relation, limit, f"evaluation.{setting}", passed, f" ({why})")
        )

    if config.max_overlap < 1 and evaluation.num_evaluation_queries > 1:
        why = "the mean share of the other queries' lists that contain a returned candidate"
        overlap = model.get(f"overlap@{k}", math.nan)
        check(
            f"overlap@{k} of the model", overlap, "at most", config.max_overlap, "max_overlap", why
        )
    targets, hits = (evaluation.cold.get(name, math.nan) for name in ("targets", "hits"))
    if config.min_cold_share > 0 and targets > 0:
        least = config.min_cold_share
        why = f"{least:g} × their share of the held-out events, {targets:.4f}"
        name = f"the cold candidates' share of the model's hits at {k}"
        check(name, hits, "at least", least * targets, "min_cold_share", why)
    if evaluation.last_blessed is None:
        return checks
    if config.min_coverage_over_last > 0:
        least, before = config.min_coverage_over_last, last.get(f"coverage@{k}", math.nan)
        why = f"{least:g} × the {before:.4f} of the last blessed model"
        coverage, setting = model.get(f"coverage@{k}", math.nan), "min_coverage_over_last"
        check(f"coverage@{k} of the model", coverage, "at least", least * before, setting, why)
    if math.isfinite(config.max_popularity_shift):
        now, before = (found.get(f"novelty@{k}", math.nan) for found in (model, last))
        more = "more" if now < before else "less"
        why = f"the candidates of the model are {more} popular than those of the last blessed model"
        shift, setting = 2.0 ** abs(now - before), "max_popularity_shift"
        name = f"the popularity shift of the first {k}"
        check(name, shift, "at most", config.max_popularity_shift, setting, why)
    return checks


def _count(name: str, value: int, least: int, setting: str) -> Check:
    passed = value >= least
    return Check(f"number of {name}", value, "at least", least, f"evaluation.{setting}", passed)


def _lift(
    evaluation: Evaluation, comparison: Comparison, config: EvaluationConfig, setting: str
) -> Check:
    """Return a check that passes if the interval of the difference is entirely above 0."""
    metric, other, factor = comparison.metric, comparison.against, comparison.factor
    value, others = (
        evaluation.metrics.get(ranker, {}).get(metric, math.nan) for ranker in (MODEL, other)
    )
    title = "the last blessed model" if other == LAST_BLESSED else f"{other}, the best baseline"
    interval = comparison.interval
    detail = (
        f" ({factor:g} × the {others:.4f} of {title}): the difference is {interval.value:.4f}, and "
        f"its {100 * config.confidence:g}% interval over {evaluation.num_queries:,} queries, "
        f"{interval.low:.4f} to {interval.high:.4f}, must be above 0"
    )
    if other == LAST_BLESSED and evaluation.last_blessed_advantage:
        # This does not change the result of the check, but readers should know about it.
        detail += (
            ". The last blessed model may have been trained on the held-out events: "
            f"{evaluation.last_blessed_advantage}"
        )
    if metric != config.baseline_metric:
        detail += f". {metric} replaces {config.baseline_metric}: {evaluation.chance_text}"
    name, passed = f"{metric} of the model", interval.low > 0.0
    return Check(name, value, "above", factor * others, setting, passed, detail)
