"""The whole component, with towers whose scores are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tfx.components.util import model_utils
from tfx.types import standard_artifacts

from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut
from components.retrieval_evaluator.component import EvaluatorConfig, RetrievalEvaluator
from components.retrieval_evaluator.config import EvaluationConfig
from models.errors import ChangedFeaturesError
from models.towers.saved_towers import SavedTowers
from tests.builders import artifact, examples_artifact, write_examples


@dataclass
class Evaluated:
    report: dict[str, Any]
    blessing: standard_artifacts.ModelBlessing
    cases: pa.Table
    items: pa.Table
    examples: list[dict[str, Any]]

    @property
    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in Path(self.blessing.uri).iterdir()}


Evaluate = Callable[..., Evaluated]


def model_of(towers: Any) -> str:
    return str(Path(towers.directory).parent)


@pytest.fixture(scope="module")
def towers(make_towers: Callable[..., Any]) -> Any:
    # Each candidate has its own axis, so that a user's vector lists the scores.
    return make_towers(
        {"a b": [1, 0, 0, 0], "b": [0, 1, 0, 0], "ç": [0, 0, 1, 0], "d": [0, 0, 0, 1]},
        {"u": [4, 3, 2, 1], "v": [1, 2, 3, 4], "lost": [float("nan")] * 4},
    )


@pytest.fixture
def evaluate(towers: Any, tmp_path: Path) -> Evaluate:
    train = [("u", ["a b"] * 3), ("v", ["b", "ç", "b"]), ("w", ["gone", "ç"])]
    examples = examples_artifact(
        tmp_path / "examples",
        train=[{"user": [u], "item": items, "is_target": [0] * len(items)} for u, items in train],
        candidates=[{"item": [name], "genres": []} for name in towers.ids],
    )

    def evaluate(
        timelines: list[tuple[str, list[str], list[str]]],
        last_blessed: str | None = None,
        held_out_from: tuple[str, str] | None = None,
        **settings: Any,
    ) -> Evaluated:
        write_examples(
            tmp_path / "examples" / "Split-eval",
            [
                {
                    "user": [user],
                    "item": [*history, *targets],
                    "is_target": [0] * len(history) + [1] * len(targets),
                    "age": [],
                }
                for user, history, targets in timelines
            ],
        )
        model = artifact(standard_artifacts.Model, Path(towers.directory).parent)
        model.id = 17
        evaluation = artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")
        blessing = artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
        config = EvaluatorConfig(
            spec=towers.spec,
            evaluation=EvaluationConfig(
                **{
                    "protocol": "from_cut",
                    "baselines": ("popularity", "repeat_history"),
                    "ks": (1, 2),
                    "baseline_metric": "hit_rate@1",
                    "min_lift": 0,
                    "min_queries": 1,
                    **settings,
                }
            ),
        )
        last_model = last_blessed and artifact(standard_artifacts.Model, last_blessed)
        last_blessing = None
        if held_out_from is not None:
            last_blessing = standard_artifacts.ModelBlessing()
            for one, day in zip((examples, last_blessing), held_out_from, strict=True):
                held_out = HeldOut("temporal", eval_from=f"{day}T00:00:00+00:00")
                one.set_string_custom_property(HELD_OUT_PROPERTY, held_out.to_json())
        RetrievalEvaluator.test_call(
            examples=examples,
            model=model,
            evaluation=evaluation,
            blessing=blessing,
            config=config.model_dump_json(),
            last_blessed_model=last_model,
            last_blessing=last_blessing,
        )
        report = json.loads(
            Path(evaluation.uri, "evaluation.json").read_text(),
            parse_constant=pytest.fail,  # JSON has no NaN
        )
        cases, items = (
            pq.read_table(f"{evaluation.uri}/{name}.parquet") for name in ("cases", "items")
        )
        examples_text = Path(evaluation.uri, "examples.json").read_text(encoding="utf-8")
        return Evaluated(report, blessing, cases, items, json.loads(examples_text)["queries"])

    return evaluate


def test_measures_the_model_and_the_baselines(evaluate: Evaluate):
    evaluated = evaluate([("u", [], ["b"]), ("v", [], ["d", "ç"])])
    metrics = evaluated.report["metrics"]
    # The model ranks b second for u; d first and ç second for v.
    assert metrics["model"]["hit_rate@1"] == pytest.approx(1 / 3)
    assert metrics["model"]["hit_rate@2"] == 1.0
    # Trained on: a b 3, b 2, ç 2, d 0. Only b is within 2.
    assert metrics["popularity"]["hit_rate@2"] == pytest.approx(1 / 3)
    for name, value in metrics["popularity"].items():
        assert metrics["repeat_history"][name] == pytest.approx(value, nan_ok=True)
    assert evaluated.report["num_queries"] == 2
    assert evaluated.report["num_events"] == 3
    assert evaluated.report["num_candidates"] == 4


@pytest.mark.parametrize("name", ["svd", "ease"])
def test_a_linear_baseline_is_left_out_if_the_catalogue_is_too_large(evaluate: Evaluate, name: str):
    def report(limit: int) -> Any:
        settings = {f"max_{name}_candidates": limit, "baselines": ["popularity", "svd", "ease"]}
        return evaluate([("u", ["a b"], ["b"])], **settings).report

    # Four candidates of the catalogue, and one that only training events have.
    refused, accepted = report(4), report(5)
    assert list(refused["left_out_baselines"]) == [name]
    assert "5 candidates, more than" in refused["left_out_baselines"][name]
    assert set(refused["metrics"]) == {"model", "popularity", "svd", "ease"} - {name}
    assert accepted["left_out_baselines"] == {}
    assert name in accepted["metrics"]


def test_the_report_has_the_shares_of_cold_candidates(evaluate: Evaluate):
    # d has no training events; the model ranks it first for v.
    report = evaluate([("v", [], ["d", "ç"]), ("u", [], ["ç"])]).report
    assert report["cold"] == {"targets": pytest.approx(1 / 3), "hits": 1.0}


def test_the_hardest_baseline_decides(evaluate: Evaluate):
    # Popularity ranks b second; the history has it.
    queries = [("u", ["b"], ["b"])] * 2
    settings = {
        "exclude_seen": False,
        "min_lift": 0.5,
        "baselines": ["popularity", "repeat_history"],
    }
    report = evaluate(queries, **settings).report
    assert report["best_baseline"]["against"] == "repeat_history"


def test_candidates_that_are_not_listed_are_in_histories_but_never_ranked(evaluate: Evaluate):
    evaluated = evaluate(
        [("v", ["gone"], ["ç"]), ("v", [], ["gone"])],
        baselines=("popularity", "sequential_rules", "content", "svd", "ease"),
    )
    report = evaluated.report
    assert (report["num_candidates"], report["num_unknown_targets"]) == (4, 1)
    # ç followed `gone` in training; `gone` itself is a miss of every ranker.
    assert report["metrics"]["sequential_rules"]["hit_rate@1"] == 0.5
    assert report["metrics"]["popularity"]["hit_rate@2"] == 0.0
    assert evaluated.cases["rank_sequential_rules"].to_pylist() == [1, None]
    assert evaluated.cases["rank_ease"].to_pylist() == [1, None]


def test_reports_intervals_for_every_cutoff(evaluate: Evaluate):
    report = evaluate([("u", [], ["b"]), ("v", [], ["d", "ç"])]).report
    families = ("hit_rate", "mrr", "ndcg")
    assert set(report["curves"]) == {f"{family}@{k}" for family in families for k in (1, 2)}
    assert report["curves"]["hit_rate@1"] == report["intervals"]
    # Both queries find all of their events among two candidates.
    assert report["curves"]["hit_rate@2"]["model"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_writes_example_queries_with_the_served_list_and_the_fields_of_its_items(
    evaluate: Evaluate,
):
    evaluated = evaluate([("u", ["a b"], ["b", "nowhere"]), ("v", [], ["d", "ç"])])
    first, second = evaluated.examples
    # v finds d first and ç second. u finds b first, but its other event cannot be ranked.
    assert (first["kind"], first["query_id"], first["recommended"][0]) == ("best", "u", "b")
    assert (first["history"], first["features"]) == (["a b"], {"age": None})
    assert "a b" not in first["recommended"]
    assert first["held_out"] == [{"id": "b", "rank": 1}, {"id": "nowhere", "rank": None}]
    assert second["held_out"] == [{"id": "d", "rank": 1}, {"id": "ç", "rank": 2}]
    # The most popular items first: a b 3, b 2, ç 1, d 0.
    ids = [name.decode() for name in evaluated.items["item"].to_pylist()]
    assert ids == ["a b", "b", "ç", "d"]
    assert {"genres", "embedding"} < set(evaluated.items.column_names)


def test_reports_metrics_with_and_without_seen_candidates(evaluate: Evaluate):
    # u has seen a b, of score 4 + 1: without it b is first, with it b is second.
    evaluated = evaluate([("u", ["a b"], ["b"])])
    assert evaluated.report["metrics"]["model"]["hit_rate@1"] == 1.0
    assert evaluated.report["metrics_other"]["model"]["hit_rate@1"] == 0.0
    swapped = evaluate([("u", ["a b"], ["b"])], exclude_seen=False)
    assert swapped.report["metrics"]["model"]["hit_rate@1"] == 0.0
    assert swapped.report["metrics_other"]["model"]["hit_rate@1"] == 1.0
    repeated = evaluate([("u", ["d"], ["d"])], exclude_seen=False)
    assert repeated.report["metrics"]["repeat_history"]["hit_rate@1"] == 1.0
    assert repeated.report["metrics_other"]["repeat_history"]["hit_rate@1"] == 0.0


def test_tfx_recognizes_the_blessing_of_a_model_that_passes(evaluate: Evaluate):
    evaluated = evaluate([("v", [], ["d"])], min_metrics={"hit_rate@1": 1.0}, min_lift=1.0)
    assert evaluated.report["best_baseline"]["against"] == "popularity"
    # With one query, all resamples are equal.
    assert evaluated.report["best_baseline"]["interval"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert evaluated.report["gate"]["blessed"] is True
    assert model_utils.is_model_blessed(evaluated.blessing)
    assert evaluated.files == {"BLESSED": ""}
    assert evaluated.blessing.get_int_custom_property("blessed") == 1
    assert evaluated.blessing.get_int_custom_property("current_model_id") == 17


@pytest.mark.parametrize(
    ("timeline", "min_metrics", "why"),
    [
        pytest.param(
            ("u", [], ["d"]),
            {"hit_rate@1": 0.5},
            "hit_rate@1 is 0.0000, but must be at least 0.5000",
            id="a low metric",
        ),
        pytest.param(("u", ["a b"], []), {}, "held-out events is 0", id="nothing held out"),
        pytest.param(("lost", [], ["d"]), {"hit_rate@2": 0.1}, "hit_rate@2 is 0.0000", id="NaN"),
    ],
)
def test_the_file_of_a_refused_model_explains_why(
    evaluate: Evaluate, timeline: Any, min_metrics: dict[str, float], why: str
):
    evaluated = evaluate([timeline], min_metrics=min_metrics)
    assert evaluated.report["gate"]["blessed"] is False
    assert not model_utils.is_model_blessed(evaluated.blessing)
    assert why in evaluated.files["NOT_BLESSED"]
    assert "nan" not in evaluated.files["NOT_BLESSED"]


def test_a_missing_split_is_an_error_without_a_blessing(evaluate: Evaluate, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="split 'test'"):
        evaluate([("u", [], ["d"])], split="test")
    assert not (tmp_path / "blessing").exists()


def test_the_cases_have_the_rank_of_each_event_by_ranker(evaluate: Evaluate):
    evaluated = evaluate([("u", ["a b"], ["a b", "nowhere"]), ("v", [], ["ç"])])
    assert evaluated.report["num_unknown_targets"] == 1
    names = [
        f"{kind}_{ranker}"
        for kind in ("rank", "rank_other")
        for ranker in ("model", "popularity", "repeat_history")
    ]
    others = [name for name in evaluated.cases.column_names if name not in names]
    assert [tuple(row.values()) for row in evaluated.cases.select(others).to_pylist()] == [
        ("u", 0, "a b", True, 1, True, 1.0),
        ("u", 0, "nowhere", False, 1, False, 1.0),
        ("v", 1, "ç", True, 0, False, 1.0),
    ]
    assert others[3:] == ["in_catalogue", "history_length", "is_repeat", "weight"]
    assert [list(row.values()) for row in evaluated.cases.select(names).to_pylist()] == [
        [None, None, None, 1, 1, 1],  # seen, and therefore excluded
        [None] * 6,
        [2, 3, 3, 2, 3, 3],
    ]


def test_slices_distinguish_queries_and_candidates(evaluate: Evaluate):
    evaluated = evaluate([("u", ["a b"], ["b"]), ("nobody", ["d"], ["d"])], exclude_seen=False)
    counts = {
        name: {value: measured["num_events"] for value, measured in values.items()}
        for name, values in evaluated.report["slices"].items()
    }
    assert counts == {
        "query": {"known": 1, "new": 1},
        "candidate": {"warm": 1, "cold": 1},
        "popularity": {"tail": 2},
        "repeat": {"repeat": 1, "new": 1},
    }


def test_rolling_adds_earlier_held_out_events_to_the_history(evaluate: Evaluate):
    evaluated = evaluate([("v", [], ["d", "ç"])], protocol="rolling")
    assert evaluated.report["num_evaluation_queries"] == 2
    # v ranks d first, then ç; for the second event, d is already seen.
    assert evaluated.cases["rank_model"].to_pylist() == [1, 1]
    assert evaluated.cases["rank_other_model"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("history", "settings", "metric", "chance", "blessed"),
    [
        # All four candidates can be ranked, then three, two and one of them.
        ([], {}, "hit_rate@1", 1 / 4, True),
        (["a b"], {}, "hit_rate@1", 1 / 3, True),
        (["a b", "b", "b"], {}, "hit_rate@1", 1 / 2, False),
        (["a b", "b", "b"], {"exclude_seen": False}, "hit_rate@1", 1 / 4, True),
        (["a b", "b", "ç"], {}, "hit_rate@1", 1.0, False),
        # The first rank counts more, also if all candidates are returned.
        (["gone"], {"baseline_metric": "query_mrr@3"}, "query_mrr@3", 11 / 24, True),
        # Without a smaller cutoff, there is no metric to compare by.
        ([], {"ks": [3]}, "hit_rate@3", 3 / 4, False),
    ],
)
def test_the_gate_uses_the_largest_cutoff_that_a_random_order_does_not_reach(
    evaluate: Evaluate,
    history: list[str],
    settings: dict[str, Any],
    metric: str,
    chance: float,
    blessed: bool,
) -> None:
    given = {"ks": [1, 2, 3], "baseline_metric": "hit_rate@3", "min_lift": 0.5, **settings}
    evaluated = evaluate([("v", history, ["d"])], baselines=["popularity"], **given)
    report = evaluated.report
    assert report["gate_metric"] == report["best_baseline"]["metric"] == metric
    assert report["chance"][metric] == pytest.approx(chance)
    assert report["gate"]["blessed"] is blessed
    assert blessed or f"chance level of {metric}" in evaluated.files["NOT_BLESSED"]


def test_the_last_blessed_model_is_ranked(evaluate: Evaluate, make_towers: Callable[..., Any]):
    # It knows neither "d" nor v, so that only b has a score.
    before = make_towers({"a b": [1, 0, 0, 0], "b": [0, 1, 0, 0]}, {"u": [1, 1, 1, 1]})
    evaluated = evaluate([("v", ["b"], ["d"])], last_blessed=model_of(before))
    metrics = evaluated.report["metrics"]
    assert metrics["model"]["hit_rate@1"] == 1.0
    assert metrics["last_blessed"]["hit_rate@1"] == 0.0
    assert evaluated.report["last_blessed"]["factor"] == 0.9
    assert evaluated.report["gate"]["blessed"] is True


def test_a_last_blessed_model_that_may_know_the_events_is_reported(evaluate: Evaluate, towers: Any):
    last = model_of(towers)
    days = ("2026-11-20", "2026-11-21")
    evaluated = evaluate([("u", [], ["a b"])], last_blessed=last, held_out_from=days)
    assert "up to 2026-11-21T00:00:00+00:00" in evaluated.report["last_blessed_advantage"]
    # The next run compares with this blessing.
    held_out = HeldOut.parse(evaluated.blessing.get_string_custom_property(HELD_OUT_PROPERTY))
    assert held_out == HeldOut("temporal", eval_from="2026-11-20T00:00:00+00:00")
    evaluated = evaluate([("u", [], ["a b"])], last_blessed=last, held_out_from=days[::-1])
    assert evaluated.report["last_blessed_advantage"] == ""
    assert evaluated.report["last_blessed"] is not None


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("better", "0.9 × the 1.0000 of the last blessed model"),
        ("gone", "the last blessed model must be evaluated"),
        ("other features", "fitted with `age`"),
    ],
)
def test_a_last_blessed_model_refuses_the_model_unless_the_comparison_is_off(
    evaluate: Evaluate,
    make_towers: Callable[..., Any],
    towers: Any,
    monkeypatch: pytest.MonkeyPatch,
    last: str,
    why: str,
) -> None:
    vectors = dict(zip(towers.ids, towers.vectors.tolist(), strict=True))
    better = make_towers(vectors, {"u": [0, 9, 0, 0]})
    load = SavedTowers.__init__

    def load_or_refuse(towers: SavedTowers, directory: str, spec: Any) -> None:
        if last == "other features" and directory == str(better.directory):
            raise ChangedFeaturesError("fitted with `age`")
        load(towers, directory, spec)

    monkeypatch.setattr(SavedTowers, "__init__", load_or_refuse)
    directory = "/gone" if last == "gone" else model_of(better)
    evaluated = evaluate([("u", [], ["b"])], last_blessed=directory)
    assert not model_utils.is_model_blessed(evaluated.blessing)
    assert "hit_rate@1" in evaluated.report["metrics"]["model"]
    assert why in evaluated.files["NOT_BLESSED"]
    assert "min_lift_over_last" in evaluated.files["NOT_BLESSED"]
    again = evaluate([("u", [], ["b"])], last_blessed=directory, min_lift_over_last=0)
    assert model_utils.is_model_blessed(again.blessing)
