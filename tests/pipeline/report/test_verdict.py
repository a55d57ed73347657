"""The sentences of a report, from facts that are written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.report.verdict import limits, verdict

_METRIC = "hit_rate@10"


def facts(state: str, problem: str = "", **run: Any) -> dict[str, Any]:
    """A model with a hit rate of 0.3, and a baseline with 0.2."""
    slices = {"cold": (100, 0.1), "warm": (900, 0.32), "rare": (5, 0.0)}
    return {
        "run": {"state": state, "problem": problem, "gates": {}, **run},
        "settings": {"split.method": "random", "training.epochs": 40},
        "index": {},
        "training": {"epochs": 7, "seconds": 61.2, "stopped_early": True, "watched": "hit_rate@10"},
        "evaluation": {
            "gate_metric": _METRIC,
            "confidence": 0.95,
            "num_queries": 1234,
            "num_events": 1000,
            "num_unknown_targets": 0,
            "intervals": {"model": {"value": 0.3, "low": 0.28, "high": 0.33}},
            "best_baseline": {"against": "item_knn"},
            "metrics": {"model": {_METRIC: 0.3}, "item_knn": {_METRIC: 0.2}},
            "slices": {
                "candidate": {
                    name: {"num_events": number, "metrics": {"model": {_METRIC: value}}}
                    for name, (number, value) in slices.items()
                }
            },
            "gate": {
                "checks": [
                    {"passed": True, "text": "events are 5"},
                    {"passed": False, "text": "hit_rate@10 is 0.3, but must be at least 0.5"},
                    {"passed": False, "text": "queries are few"},
                ],
                "problems": [],
            },
        },
    }


_MEASURED = (
    "hit_rate@10 is 0.3000 (95% interval 0.2800 to 0.3300 over 1,234 queries), 50% above item_knn, "
    "the best baseline (0.2000)."
)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ({"newly_pushed": True, "pushed_version": 7}, f"Version 7 was pushed: {_MEASURED}"),
        (
            {"newly_pushed": False, "pushed_version": 7},
            f"Version 7 already serves this model: {_MEASURED}",
        ),
        ({"pushed_version": None}, f"Accepted by all gates, but not pushed: {_MEASURED}"),
    ],
)
def test_a_complete_run_is_compared_with_the_best_baseline(run: dict[str, Any], sentence: str):
    assert verdict(facts("complete", **run))["sentence"] == sentence


def test_a_refusal_names_the_gate_the_failed_checks_and_the_advice():
    problem = "CandidateEmbedder: the gate refused:\n  To change this: train longer, or lower it."
    found = verdict(facts("refused", problem, gates={"evaluation": "refused"}))
    assert found["sentence"] == (
        "Refused by the evaluation gate: hit_rate@10 is 0.3, but must be at least 0.5."
    )
    assert found["reasons"] == ["queries are few"]
    assert found["advice"] == ["train longer, or lower it."]


def test_a_refusal_by_another_gate_has_its_reason():
    problem = "DriftGate: span 2 has drifted from span 1: events is 9"
    found = verdict(facts("refused", problem, gates={"drift": "refused", "evaluation": "passed"}))
    assert found["sentence"] == f"Refused by the drift gate: {problem}."


def test_the_reason_of_the_end_of_the_training_is_named():
    assert verdict(facts("complete"))["training"] == (
        "7 of 40 epochs in 61 s; stopped early, because hit_rate@10 did not improve."
    )


def test_the_limits_name_weak_slices_with_enough_events():
    found = "\n".join(limits(facts("complete")))
    assert "0.1000 for 100 events with candidate: cold, compared with 0.3000" in found
    assert "random split" in found
    assert "rare" not in found
    assert "warm" not in found
