import json
import math
from dataclasses import replace
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from components.retrieval_evaluator.bootstrap import Comparison, Interval
from components.retrieval_evaluator.config import BaselineName, EvaluationConfig
from components.retrieval_evaluator.evaluate import Evaluation
from components.retrieval_evaluator.gate import Decision, decide
from models.features.spec import FeatureSpec
from tests.builders import feature_spec


def compared(against: str, low: float, factor: float = 1.0) -> Comparison:
    return Comparison("hit_rate@10", against, factor, Interval(0.1, low, 0.2))


BEHAVIOUR = {f"overlap@{k}": 0.1 for k in (5, 10)} | {"coverage@10": 0.4, "novelty@10": 9.0}
EVALUATION = Evaluation(
    metrics={
        "model": {"hit_rate@10": 0.3, "ndcg@5": 0.1, **BEHAVIOUR},
        "popularity": {"hit_rate@10": 0.2},
        "last_blessed": {"hit_rate@10": 0.25, **BEHAVIOUR},
    },
    metrics_other={},
    slices={},
    intervals={},
    curves={},
    best_baseline=compared("popularity", 0.05),
    last_blessed=None,
    last_blessed_problem="",
    num_queries=20,
    num_evaluation_queries=20,
    num_events=10,
    num_left_out=0,
    num_without_weight=0,
    num_not_drawn=0,
    num_candidates=5,
    num_unknown_targets=0,
    gate_metric="hit_rate@10",
    chance={"hit_rate@10": 0.1},
)


def gate(settings: dict[str, Any] | None = None, **measured: Any) -> Decision:
    return decide(replace(EVALUATION, **measured), EvaluationConfig(**(settings or {})))


def test_blesses_a_model_that_passes_every_check():
    settings = {"min_metrics": {"ndcg@5": 0.1, "query_map@5": 0.0}}
    metrics = {**EVALUATION.metrics, "model": {**EVALUATION.metrics["model"], "query_map@5": 0.1}}
    decision = gate(settings, last_blessed=compared("last_blessed", 0.01), metrics=metrics)
    assert decision.blessed
    assert decision.refusals == []


@pytest.mark.parametrize(
    ("settings", "measured", "refused", "advised"),
    [
        (
            {"min_metrics": {"ndcg@5": 0.2}},
            {},
            "ndcg@5 is 0.1000, but must be at least 0.2000",
            "lower evaluation.min_metrics",
        ),
        (
            {},
            {"last_blessed": compared("last_blessed", -0.02, 0.9)},
            "0.9 × the 0.2500 of the last blessed model",
            "lower evaluation.min_lift_over_last.",
        ),
    ],
)
def test_a_refusal_names_the_values_and_the_setting(
    settings: dict[str, Any], measured: dict[str, Any], refused: str, advised: str
) -> None:
    refusal, advice = gate(settings, **measured).refusals
    assert refused in refusal
    assert advised in advice


def test_a_refusal_on_several_counts_has_one_line_of_advice():
    worse = compared("popularity", -0.01, 0.9)
    minima = {"min_metrics": {"ndcg@5": 0.2, "hit_rate@10": 0.9}}
    *refusals, advice = gate(minima, num_queries=19, best_baseline=worse).refusals
    assert len(refusals) == 4
    assert not any("To change this" in line for line in refusals)
    assert advice.startswith("To change this: ")
    assert advice.count("train longer") == 1
    assert "or lower evaluation.min_metrics and evaluation.min_lift; " in advice
    assert advice.count("evaluation.min_queries") == 1


@pytest.mark.parametrize("low", [-0.01, 0.0, math.nan])
def test_the_interval_of_the_difference_to_the_best_baseline_must_be_above_zero(low: float):
    refusal, advice = gate(best_baseline=compared("popularity", low, 0.9)).refusals
    assert "hit_rate@10 of the model is 0.3000, but must be above 0.1800" in refusal
    assert "0.9 × the 0.2000 of popularity, the best baseline" in refusal
    assert f"95% interval over 20 queries, {low:.4f} to 0.2000" in refusal
    assert "lower evaluation.min_lift." in advice


def test_a_last_blessed_model_that_may_know_the_answers_is_still_compared_with():
    lost = gate(
        last_blessed=compared("last_blessed", -0.02, 0.9), last_blessed_advantage="it cut later"
    )
    assert "may have been trained on the held-out events: it cut later" in lost.refusals[0]
    assert gate(
        last_blessed=compared("last_blessed", 0.02), last_blessed_advantage="it cut later"
    ).blessed


@pytest.mark.parametrize("chance", [0.5, 1.0, math.nan])
def test_a_comparison_needs_a_metric_that_a_random_order_does_not_reach(chance: float):
    measured = {"chance": {"hit_rate@10": 1.0, "hit_rate@5": chance}, "gate_metric": "hit_rate@5"}
    refusal, advice = gate(**measured).refusals
    assert (
        "chance level of hit_rate@5 must be" in refusal
        or "100.0% of the best hit_rate@10" in refusal
    )
    assert "evaluation.ks" in advice
    assert gate({"min_lift": 0}, **measured).blessed


def test_a_minimum_that_a_random_order_reaches_refuses():
    model = {"hit_rate@10": 0.9, "ndcg@5": 0.1, **BEHAVIOUR}
    metrics = {"model": model, "popularity": {"hit_rate@10": 0.2}}
    chance = {"hit_rate@10": 0.7, "ndcg@5": 0.2}
    low = {"min_metrics": {"hit_rate@10": 0.6, "ndcg@5": 0.1}, "min_lift": 0}
    refusal, _ = gate(low, metrics=metrics, chance=chance).refusals
    assert refusal.startswith("the minimum of hit_rate@10 is 0.6000, but must be above 0.7000")
    high = {"min_metrics": {"hit_rate@10": 0.8}, "min_lift": 0}
    assert gate(high, metrics=metrics, chance=chance).blessed


def test_a_comparison_needs_enough_queries():
    refusal, advice = gate(num_queries=19).refusals
    assert refusal == "number of held-out queries is 19, but must be at least 20"
    assert "evaluation.min_queries" in advice
    assert gate({"min_queries": 19}, num_queries=19).blessed
    assert gate({"min_lift": 0}, num_queries=1).blessed
    last = compared("last_blessed", 0.1)
    assert not gate({"min_lift": 0}, num_queries=1, last_blessed=last).blessed


def test_refuses_if_the_last_blessed_model_cannot_be_evaluated_and_says_what_to_do():
    (refusal,) = gate(last_blessed_problem="/models/7: it lacks `age`").refusals
    assert "/models/7: it lacks `age`" in refusal
    assert "evaluation.min_lift_over_last: 0" in refusal
    assert gate({"min_lift_over_last": 0}, last_blessed_problem="gone").blessed


LAST = {"last_blessed": compared("last_blessed", 0.01)}


@pytest.mark.parametrize(
    ("behaviour", "measured", "refused", "off"),
    [
        ({"overlap@10": 0.96}, {}, "overlap@10 of the model is 0.9600", {"max_overlap": 1.0}),
        ({"overlap@10": math.nan}, {}, "overlap@10 of the model must be", {"max_overlap": 1.0}),
        (
            {"coverage@10": 0.19},
            LAST,
            "0.1900, but must be at least 0.2000 (0.5 × the 0.4000 of the last blessed model)",
            {"min_coverage_over_last": 0.0},
        ),
        (
            {"novelty@10": 6.0},
            LAST,
            "8.0000, but must be at most 4.0000 (the candidates of the model are more popular",
            {"max_popularity_shift": math.inf},
        ),
        ({"novelty@10": 12.0}, LAST, "less popular", {"max_popularity_shift": 9.0}),
    ],
)
def test_refuses_lists_that_hardly_differ_or_have_collapsed(
    behaviour: dict[str, float], measured: dict[str, Any], refused: str, off: dict[str, float]
) -> None:
    model = {**EVALUATION.metrics["model"], **behaviour}
    measured = {"metrics": {**EVALUATION.metrics, "model": model}, **measured}
    refusal, advice = gate(**measured).refusals
    assert refused in refusal
    assert f"evaluation.{next(iter(off))}" in advice
    assert gate(off, **measured).blessed


@pytest.mark.parametrize("hits", [0.0, 0.24, math.nan])
def test_refuses_a_model_that_hardly_finds_cold_candidates_if_set(hits: float):
    cold = {"targets": 0.5, "hits": hits}
    refusal, advice = gate({"min_cold_share": 0.5}, cold=cold).refusals
    assert "0.2500" in refusal
    assert "0.5 × their share of the held-out events, 0.5000" in refusal
    assert "candidates.features" in advice
    assert gate({"min_cold_share": 0.5}, cold={"targets": 0.5, "hits": 0.25}).blessed
    # Without cold targets, there is nothing to find.
    assert gate({"min_cold_share": 0.5}, cold={"targets": 0.0, "hits": 0.0}).blessed


def test_a_lift_of_zero_turns_a_comparison_off():
    assert gate({"min_lift": 0}, best_baseline=compared("popularity", -1.0)).blessed
    assert gate({"min_lift_over_last": 0}, last_blessed=compared("last_blessed", -1.0)).blessed


@pytest.mark.parametrize("metrics", [{}, {"model": {}}, {"model": {"hit_rate@10": math.nan}}])
def test_refuses_if_the_metric_of_the_model_is_missing_or_nan(metrics: dict[str, Any]):
    assert not gate({"min_metrics": {"hit_rate@10": 0.0}}, metrics=metrics).blessed


@pytest.mark.parametrize(
    ("measured", "name"),
    [({"best_baseline": None}, "number of baselines"), ({"num_events": 0}, "held-out events")],
)
def test_refuses_without_baselines_or_held_out_events(measured: dict[str, Any], name: str):
    refusal, _ = gate(**measured).refusals
    assert f"{name} is 0, but must be at least 1" in refusal


def test_the_report_is_json_with_every_check():
    decision = gate(last_blessed=compared("last_blessed", 0.1))
    report = json.loads(json.dumps(decision.to_json()))
    assert report["blessed"] is True
    values = [check["value"] for check in report["checks"]]
    assert values == [10, 1, 0.3, 0.3, 20, 0.1, 0.1, 0.4, 1.0]
    assert all("and must be" in check["text"] for check in report["checks"])


@pytest.mark.parametrize(
    "settings",
    [
        {"ks": (5, 5)},
        {"ks": (1, 5)},
        {"min_metrics": {"hit_rate@7": 0.1}},
        {"min_metrics": {"recall@10": 0.1}},
        {"baseline_metric": "hit_rate"},
        # Compared with anything NaN is false, which would turn the gate off.
        {"min_lift": math.nan},
        {"min_lift_over_last": math.nan},
        {"confidence": math.nan},
    ],
)
def test_config_refuses_metrics_that_are_not_computed_and_nan_thresholds(settings: dict[str, Any]):
    with pytest.raises(ValidationError):
        EvaluationConfig(**settings)


def test_default_baselines_suit_the_data_and_the_split():
    shop = feature_spec(candidate={"brand": {"kind": "categorical"}}, timestamp="time")

    def chosen(method: str, spec: FeatureSpec) -> set[str]:
        config = EvaluationConfig()
        baselines = set(config.for_split(method, spec).baselines or ())
        assert baselines | set(config.left_out(method, spec)) == set(get_args(BaselineName))
        return baselines

    regardless_of_order = {"popularity", "repeat_history", "item_knn", "svd", "ease"}
    assert chosen("random", feature_spec()) == regardless_of_order
    assert chosen("random", shop) == regardless_of_order | {"content"}
    assert chosen("temporal", shop) == set(get_args(BaselineName))
    without_times = chosen("leave_last_out", feature_spec())
    assert without_times == regardless_of_order | {"sequential_rules", "session_knn"}
    given = EvaluationConfig(baselines=("popularity",))
    assert given.for_split("temporal", shop).baselines == ("popularity",)
    assert given.left_out("temporal", shop) == {}
