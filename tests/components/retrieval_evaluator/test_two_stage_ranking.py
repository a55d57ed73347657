"""The choice between the ranked and the retrieved list, with a ranker that knows popularity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tfx.types import standard_artifacts

from components.artifacts import serves_ranking
from components.retrieval_evaluator.component import EvaluatorConfig, RetrievalEvaluator
from components.retrieval_evaluator.config import EvaluationConfig
from tests.builders import add_ranking_stage, artifact, examples_artifact

# Popularity grows from a to d, and the retriever ranks the other way around. It finds a, b and c.
IDS = ["a", "b", "c", "d"]
COUNTS = [[0], [1, 1], [2, 2, 2], [3, 3, 3, 3]]

Evaluate = Callable[..., tuple[dict[str, Any], Any]]


@pytest.fixture
def evaluate(make_towers: Callable[..., Any], tmp_path: Path) -> Evaluate:
    def evaluate(
        target: str, weights: dict[str, float], min_queries: int = 3
    ) -> tuple[dict[str, Any], Any]:
        axes = {"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "c": [0, 0, 1, 0], "d": [0, 0, 0, 1]}
        towers = make_towers(axes, {f"u{number}": [4, 3, 2, 1] for number in range(3)})
        add_ranking_stage(towers, COUNTS, weights, num_candidates=3)
        timelines = [
            {"user": [f"u{number}"], "item": [target], "is_target": [1], "age": []}
            for number in range(3)
        ]
        examples = examples_artifact(
            tmp_path / "examples",
            train=[{"user": ["v"], "item": IDS, "is_target": [0] * 4}],
            candidates=[{"item": [name], "genres": []} for name in IDS],
            eval=timelines,
        )
        evaluation = artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")
        blessing = artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
        settings = EvaluationConfig(
            protocol="from_cut",
            baselines=("popularity",),
            ks=(1, 2, 3),
            baseline_metric="hit_rate@1",
            min_lift=0,
            min_queries=min_queries,
            exclude_seen=False,
        )
        RetrievalEvaluator.test_call(
            examples=examples,
            model=artifact(standard_artifacts.Model, Path(towers.directory).parent),
            evaluation=evaluation,
            blessing=blessing,
            config=EvaluatorConfig(spec=towers.spec, evaluation=settings).model_dump_json(),
        )
        return json.loads(Path(evaluation.uri, "evaluation.json").read_text()), blessing

    return evaluate


def test_a_ranked_list_that_is_better_is_the_model(evaluate: Evaluate):
    report, blessing = evaluate("c", {"popularity": 1.0})
    assert report["metrics"]["model"]["hit_rate@1"] == 1.0
    assert report["metrics"]["retrieved"]["hit_rate@1"] == 0.0
    assert report["ranking"]["served"] is True
    assert report["ranking"]["recall"] == 1.0
    assert serves_ranking(blessing)


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        pytest.param("a", {"popularity": 1.0}, id="worse"),
        pytest.param("d", {"popularity": 1.0}, id="not among the candidates of the ranker"),
        pytest.param("b", {}, id="a constant ranker, whose ties count against it"),
    ],
)
def test_otherwise_the_retrieved_list_is_the_model(
    evaluate: Evaluate, target: str, weights: dict[str, float]
):
    report, blessing = evaluate(target, weights)
    hits = {"a": 1.0, "b": 0.0, "d": 0.0}
    assert report["metrics"]["model"]["hit_rate@1"] == hits[target]
    assert report["metrics"]["ranked"]["hit_rate@1"] == 0.0
    assert report["metrics"]["ranked"]["hit_rate@2"] == 0.0
    assert report["ranking"]["served"] is False
    assert not serves_ranking(blessing)


def test_too_few_queries_do_not_show_that_the_ranked_list_is_better(evaluate: Evaluate):
    report, blessing = evaluate("c", {"popularity": 1.0}, min_queries=4)
    assert report["metrics"]["ranked"]["hit_rate@1"] == 1.0
    assert report["ranking"]["served"] is False
    assert not serves_ranking(blessing)
