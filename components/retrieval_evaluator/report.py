"""The report of an evaluation, as plain data."""

from dataclasses import asdict
from typing import Any

from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluate import Evaluation
from components.retrieval_evaluator.gate import Decision, decide

EVALUATION_FILE = "evaluation.json"


def judge(evaluation: Evaluation, config: EvaluationConfig) -> Decision:
    """Holds an evaluation against the thresholds."""
    return decide(
        evaluation.metrics,
        evaluation.num_events,
        evaluation.num_queries,
        config,
        evaluation.best_baseline,
        evaluation.last_blessed,
        evaluation.last_blessed_problem,
        evaluation.last_blessed_advantage,
    )


def make_report(
    evaluation: Evaluation, decision: Decision, config: EvaluationConfig
) -> dict[str, Any]:
    """Returns what `evaluation.json` holds."""
    return {
        "split": config.split,
        "protocol": config.protocol,
        "min_history": config.min_history,
        "exclude_seen": config.exclude_seen,
        "baseline_metric": config.baseline_metric,
        "confidence": config.confidence,
        "resamples": config.resamples,
        **asdict(evaluation),
        "gate": decision.to_json(),
    }
