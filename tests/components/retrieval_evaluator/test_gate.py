import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.gate import Decision, decide


def gate(
    model: dict[str, float],
    popularity: dict[str, float] | None = None,
    num_events: int = 10,
    **settings: Any,
) -> Decision:
    baselines = {} if popularity is None else {"popularity": popularity}
    return decide({"model": model, **baselines}, num_events, EvaluationConfig(**settings))


def test_blesses_a_model_above_every_threshold():
    decision = gate(
        {"hit_rate@10": 0.3, "ndcg@5": 0.2},
        {"hit_rate@10": 0.1},
        min_metrics={"ndcg@5": 0.2},
        min_lift=2.0,
    )
    assert decision.blessed
    assert decision.refusals == []


def test_names_the_threshold_that_was_missed():
    decision = gate(
        {"hit_rate@10": 0.3, "ndcg@5": 0.1}, {"hit_rate@10": 0.1}, min_metrics={"ndcg@5": 0.2}
    )
    assert not decision.blessed
    assert decision.refusals == ["ndcg@5 0.1000 is not at least 0.2000"]


def test_names_the_baseline_that_was_not_beaten():
    decision = gate({"hit_rate@10": 0.15}, {"hit_rate@10": 0.1}, min_lift=2.0)
    assert decision.refusals == ["hit_rate@10 beside 2 × popularity: 0.1500 is not above 0.2000"]


def test_a_metric_at_its_threshold_passes_but_a_draw_with_a_baseline_does_not():
    metrics = {"hit_rate@10": 0.2}
    assert gate(metrics, min_metrics={"hit_rate@10": 0.2}, min_lift=0).blessed
    assert not gate(metrics, {"hit_rate@10": 0.2}).blessed


def test_every_baseline_must_be_beaten():
    metrics = {
        "model": {"hit_rate@10": 0.2},
        "popularity": {"hit_rate@10": 0.1},
        "repeat_history": {"hit_rate@10": 0.3},
    }
    decision = decide(metrics, 10, EvaluationConfig())
    assert [check.passed for check in decision.checks] == [True, True, True, False]


def test_a_lift_of_zero_switches_the_baselines_off():
    assert gate({"hit_rate@10": 0.0}, {"hit_rate@10": 0.9}, min_lift=0).blessed


@pytest.mark.parametrize("model", [{}, {"hit_rate@10": math.nan}])
def test_refuses_where_the_models_metric_is_missing_or_no_number(model: dict[str, float]):
    assert not gate(model, {"hit_rate@10": 0.0}).blessed
    assert not gate(model, min_metrics={"hit_rate@10": 0.0}, min_lift=0).blessed


@pytest.mark.parametrize("popularity", [{}, {"hit_rate@10": math.nan}])
def test_refuses_where_a_baselines_metric_is_missing_or_no_number(popularity: dict[str, float]):
    assert not gate({"hit_rate@10": 0.9}, popularity).blessed


def test_refuses_where_the_model_was_not_measured_at_all():
    assert not decide({}, 10, EvaluationConfig(min_metrics={"ndcg@5": 0.0})).blessed


def test_refuses_where_there_is_no_baseline_to_beat():
    assert gate({"hit_rate@10": 0.9}).refusals == [
        "number of baselines 0.0000 is not at least 1.0000"
    ]


def test_refuses_an_evaluation_without_held_out_events():
    decision = gate({"hit_rate@10": 0.9}, {"hit_rate@10": 0.1}, num_events=0)
    assert decision.refusals == ["number of held-out events 0.0000 is not at least 1.0000"]


def test_report_is_json_with_every_check():
    decision = gate({"hit_rate@10": 0.3}, {"hit_rate@10": 0.1})
    report = json.loads(json.dumps(decision.to_json()))
    assert report["blessed"] is True
    assert [check["name"] for check in report["checks"]] == [
        "number of held-out events",
        "number of baselines",
        "hit_rate@10 beside 1 × popularity:",
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"ks": ()},
        {"ks": (0,)},
        {"ks": (5, 5)},
        {"min_metrics": {"hit_rate@7": 0.1}},
        {"min_metrics": {"recall@10": 0.1}},
        {"baseline_metric": "hit_rate"},
        {"ks": (1, 5)},
    ],
)
def test_config_refuses_metrics_that_are_not_measured(settings: dict[str, Any]):
    with pytest.raises(ValidationError):
        EvaluationConfig(**settings)


def test_config_refuses_a_lift_that_is_no_number():
    # Compared with anything it is false, which would switch the gate off.
    with pytest.raises(ValidationError):
        EvaluationConfig(min_lift=math.nan)
