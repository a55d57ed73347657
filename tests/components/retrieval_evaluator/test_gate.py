import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from components.retrieval_evaluator.bootstrap import Interval
from components.retrieval_evaluator.comparison import Comparison
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.gate import Decision, decide


def beside(against: str, low: float, factor: float = 1.0) -> Comparison:
    return Comparison("hit_rate@10", against, factor, Interval(0.1, low, 0.2))


def gate(model: dict[str, float], num_events: int = 10, **settings: Any) -> Decision:
    evidence = {
        name: settings.pop(name, default)
        for name, default in (
            ("best_baseline", beside("popularity", 0.05)),
            ("last_blessed", None),
            ("last_blessed_problem", ""),
            ("last_blessed_advantage", ""),
        )
    }
    num_queries = settings.pop("num_queries", 20)
    config = EvaluationConfig(**settings)
    return decide({"model": model}, num_events, num_queries, config, **evidence)


def test_blesses_a_model_above_every_threshold():
    decision = gate(
        {"ndcg@5": 0.2}, min_metrics={"ndcg@5": 0.2}, last_blessed=beside("last_blessed", 0.01)
    )
    assert decision.blessed
    assert decision.refusals == []


def test_names_the_threshold_that_was_missed():
    decision = gate({"ndcg@5": 0.1}, min_metrics={"ndcg@5": 0.2})
    assert not decision.blessed
    assert decision.refusals == ["ndcg@5 0.1000 is not at least 0.2000"]


@pytest.mark.parametrize("low", [-0.01, 0.0, math.nan])
def test_the_lower_bound_beside_the_best_baseline_must_be_above_zero(low: float):
    decision = gate({}, best_baseline=beside("session_knn", low))
    assert decision.refusals == [
        "hit_rate@10 less 1 × session_knn is 0.1000; its lower bound at 0.95 confidence "
        f"{low:.4f} is not above 0.0000"
    ]


def test_a_last_blessed_model_that_may_know_the_answers_is_still_compared_with():
    lost = gate(
        {}, last_blessed=beside("last_blessed", -0.02, 0.9), last_blessed_advantage="it cut later"
    )
    (refusal,) = lost.refusals
    assert refusal.startswith(
        "(last_blessed may know the held-out events: it cut later) hit_rate@10 less 0.9 × last"
    )
    won = gate({}, last_blessed=beside("last_blessed", 0.02), last_blessed_advantage="it cut later")
    assert won.blessed


def test_the_lower_bound_beside_the_last_blessed_model_must_be_above_zero():
    decision = gate({}, last_blessed=beside("last_blessed", -0.02, 0.9))
    assert decision.refusals == [
        "hit_rate@10 less 0.9 × last_blessed is 0.1000; its lower bound at 0.95 confidence "
        "-0.0200 is not above 0.0000"
    ]


def test_a_comparison_over_a_few_queries_is_none():
    decision = gate({}, num_queries=19)
    assert decision.refusals == ["number of held-out queries 19.0000 is not at least 20.0000"]
    assert gate({}, num_queries=19, min_queries=19).blessed
    assert gate({}, num_queries=1, min_lift=0).blessed
    assert not gate({}, num_queries=1, min_lift=0, last_blessed=beside("last_blessed", 0.1)).blessed


def test_the_first_model_has_no_last_one_to_be_held_against():
    assert gate({}, last_blessed=None).blessed


def test_refuses_where_the_last_blessed_model_cannot_be_asked_and_says_the_way_out():
    decision = gate({}, last_blessed_problem="/models/7: it lacks `age`")
    assert decision.refusals == [
        "the last blessed model cannot be compared with: /models/7: it lacks `age`; "
        "`evaluation.min_lift_over_last: 0` blesses without the comparison"
    ]
    assert gate({}, last_blessed_problem="gone", min_lift_over_last=0).blessed


def test_a_lift_of_zero_switches_a_comparison_off():
    assert gate({}, best_baseline=beside("popularity", -1.0), min_lift=0).blessed
    assert gate({}, last_blessed=beside("last_blessed", -1.0), min_lift_over_last=0).blessed


@pytest.mark.parametrize("model", [{}, {"hit_rate@10": math.nan}])
def test_refuses_where_the_models_metric_is_missing_or_no_number(model: dict[str, float]):
    assert not gate(model, min_metrics={"hit_rate@10": 0.0}).blessed


def test_refuses_where_the_model_was_not_measured_at_all():
    assert not decide({}, 10, 10, EvaluationConfig(min_metrics={"ndcg@5": 0.0})).blessed


def test_refuses_where_there_is_no_baseline_to_beat():
    assert gate({}, best_baseline=None).refusals == [
        "number of baselines 0.0000 is not at least 1.0000"
    ]


def test_refuses_an_evaluation_without_held_out_events():
    assert gate({}, num_events=0).refusals == [
        "number of held-out events 0.0000 is not at least 1.0000"
    ]


def test_report_is_json_with_every_check():
    report = json.loads(json.dumps(gate({}, last_blessed=beside("last_blessed", 0.1)).to_json()))
    assert report["blessed"] is True
    assert [check["value"] for check in report["checks"]] == [10, 1, 0.05, 20, 0.1]


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
        {"baselines": ("popular",)},
        {"confidence": 1.0},
        {"resamples": 10},
        # Compared with anything it is false, which would switch the gate off.
        {"min_lift": math.nan},
        {"min_lift_over_last": math.nan},
        {"confidence": math.nan},
    ],
)
def test_config_refuses_what_cannot_be_measured(settings: dict[str, Any]):
    with pytest.raises(ValidationError):
        EvaluationConfig(**settings)


def test_config_takes_metrics_over_queries():
    EvaluationConfig(baseline_metric="query_ndcg@10", min_metrics={"query_map@5": 0.1})


def test_baselines_are_those_that_suit_the_split():
    def chosen(method: str, *, has_times: bool = True) -> set[str]:
        return set(EvaluationConfig().for_split(method, has_times=has_times).baselines or ())

    assert chosen("random") == {"popularity", "repeat_history", "item_knn"}
    assert chosen("temporal") > {"sequential_rules", "session_knn", "recent_popularity"}
    assert "recent_popularity" not in chosen("leave_last_out", has_times=False)
    told = EvaluationConfig(baselines=("popularity",)).for_split("temporal", has_times=True)
    assert told.baselines == ("popularity",)
