"""Candidates that are available only for a time: evaluated and served as of the query's time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

from components.index_builder.build import build_retrieval_model
from components.index_builder.config import IndexConfig
from components.index_builder.loaded_model import LoadedModel
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluate import evaluate
from models.features.spec import MISSING_TIME
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers
from tests.builders import (
    add_ranking_stage,
    examples_artifact,
    feature_spec,
    write_embeddings,
)

SPEC = feature_spec(
    query={"age": {"kind": "numeric"}},
    candidate={"genres": {"kind": "categorical", "separator": "|"}},
    timestamp="time",
    available_from="published",
    available_until="delisted",
)
IDS = ["always", "old", "new", "never"]
FROM = {"new": 100, "never": 50}
UNTIL = {"old": 100, "never": 50}
# The model prefers them in this order.
ORDER = ["never", "old", "new", "always"]


def times(name: str) -> dict[str, list[int]]:
    return {
        key: [of[name]] if name in of else []
        for key, of in (("available_from", FROM), ("available_until", UNTIL))
    }


@pytest.fixture(scope="module", params=[False, True], ids=["retrieved", "ranked"])
def ranked(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def towers(make_towers: Callable[..., Any], ranked: bool) -> Any:
    user = [float(len(ORDER) - ORDER.index(name)) for name in IDS]
    vectors = dict(zip(IDS, np.eye(4).tolist(), strict=True))
    towers = make_towers(vectors, {"u": user}, spec=SPEC)
    if ranked:
        add_ranking_stage(towers, [[1, 1, 0, 0, 2]], {"score": 1.0}, num_candidates=3)
    return towers


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> str:
    events = ["old", "old", "old", "always", "always", "new"]
    moments = [70, 80, 85, 90, 99, 101]
    timeline = {"user": ["u"], "age": [], "item": events, "timestamp": moments}
    held_out = {**timeline, "is_target": [0, 0, 0, 0, 1, 1]}
    return examples_artifact(
        tmp_path_factory.mktemp("examples"),
        train=[{**timeline, "is_target": [0] * 6}],
        eval=[held_out],
        candidates=[{"item": [name], "genres": [], **times(name)} for name in IDS],
    ).uri


def test_the_model_and_baselines_rank_what_is_available_at_the_time_of_the_query(
    towers: Any, examples: str, ranked: bool
):
    settings = EvaluationConfig(
        protocol="rolling",
        baselines=("popularity", "sequential_rules", "newest", "svd"),
        ks=(1,),
        baseline_metric="hit_rate@1",
        exclude_seen=False,
    )
    saved = SavedTowers(towers.directory, SPEC)
    evaluation, results, samples = evaluate(saved, examples, SPEC, settings)
    # At 99, old and always are available, and at 101, new and always.
    assert results.columns["num_ranked"].tolist() == [2, 2]
    found = {name: ranks.tolist() for name, ranks in results.ranks("rank_").items()}
    names = ["model", "popularity", "newest", *(["ranked"] if ranked else [])]
    assert {name: found[name] for name in names} == {
        "model": [2, 1],
        "popularity": [2, 2],
        "newest": [1, 1],
        **({"ranked": [2, 1]} if ranked else {}),
    }
    assert all(max(ranks) <= 2 for ranks in found.values())
    assert evaluation.num_unavailable_targets == 0
    for example in samples.queries:
        assert example["recommended"] in (["old", "always"], ["new", "always"])


def test_targets_that_are_not_available_are_misses_of_every_ranker(towers: Any, tmp_path: Path):
    rows = {"user": ["u"], "age": [], "item": ["always", "new"], "timestamp": [90, 99]}
    examples = examples_artifact(
        tmp_path,
        train=[{**rows, "is_target": [0, 0]}],
        eval=[{**rows, "is_target": [0, 1]}],
        candidates=[{"item": [name], "genres": [], **times(name)} for name in IDS],
    ).uri
    settings = EvaluationConfig(
        protocol="rolling", baselines=("newest",), ks=(4,), baseline_metric="hit_rate@4"
    )
    evaluation, results, _ = evaluate(SavedTowers(towers.directory, SPEC), examples, SPEC, settings)
    assert evaluation.num_unavailable_targets == 1
    assert {values["hit_rate@4"] for values in evaluation.metrics.values()} == {0.0}
    assert results.columns["num_ranked"].tolist() == [0]


def test_every_signature_serves_only_what_is_available(
    towers: Any, examples: str, tmp_path: Path, ranked: bool
):
    columns = {
        "item": [name.encode() for name in IDS],
        "genres": [[b"drama"]] * 4,
        **{
            key: np.array([(times(name)[key] or [MISSING_TIME])[0] for name in IDS])
            for key in ("available_from", "available_until")
        },
    }
    build_retrieval_model(
        SavedTowers(towers.directory, SPEC),
        write_embeddings(tmp_path, SPEC, (columns, towers.vectors)),
        split_files(examples, "eval"),
        SPEC,
        IndexConfig(k=3, filters=("genres",)),
        "retrieval",
        "identity",
        str(tmp_path / "model"),
    )
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    query = {
        "user": tf.constant(["u"]),
        "age": tf.constant([float("nan")]),
        "history": tf.constant([["old"]]),
    }
    no_filter = {"allow_genres": tf.zeros([1, 0], tf.string)}

    def ask(name: str, moments: list[int], **inputs: Any) -> list[list[str]]:
        answer = signatures[name](time=tf.constant(moments, tf.int64), **inputs)
        return [[i.decode() for i in row if i] for row in answer["candidate_ids"].numpy()]

    wanted = [["old", "always"], ["new", "always"]]
    assert ask("serving_default", [99, 100], **query) == wanted
    nothing = {
        **no_filter,
        "exclude": tf.zeros([1, 0], tf.string),
        "exclude_seen": tf.constant([False]),
    }
    assert ask("recommend_excluding", [99, 100], **query, **nothing) == wanted
    without = {**nothing, "exclude": tf.constant([["always"]])}
    assert ask("recommend_excluding", [99, 100], **query, **without) == [["old"], ["new"]]
    similar = {**no_filter, "item": tf.constant(["never"])}
    assert [set(ids) for ids in ask("similar_candidates", [99, 100], **similar)] == [
        {"old", "always"},
        {"new", "always"},
    ]
    is_deterministic = config.is_op_determinism_enabled()
    config.disable_op_determinism()  # another test may have enabled it
    for moment in (0, MISSING_TIME):
        assert ask("serving_default", [moment], **query) == wanted[1:]
    if is_deterministic:
        config.enable_op_determinism()
    # In the process of a training, TensorFlow cannot tell the time.
    answer = LoadedModel(str(tmp_path / "model")).answer("serving_default", {"user": [b"u"]})
    assert {name for name in answer["candidate_ids"][0] if name} == {b"new", b"always"}
    if ranked:
        assert ask("retrieve", [99, 100], **query) == wanted
        given = tf.constant([["old", "new", "always", "never"]])
        moment = tf.constant([99], tf.int64)
        scores = signatures["rank"](time=moment, candidate_ids=given, **query)["scores"]
        assert (scores.numpy()[0] > tf.float32.min).tolist() == [True, False, True, False]
