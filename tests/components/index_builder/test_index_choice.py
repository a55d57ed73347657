from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from components.index_builder import index_choice
from components.index_builder.config import IndexConfig
from components.index_builder.index_choice import IndexChoice, choose_index, growing_parts
from components.index_builder.recall import exact_answers, recall_of_each, search_in_batches

K = 10
RNG = np.random.default_rng(0)
# Without clusters: a search finds more only by looking further.
VECTORS = RNG.normal(size=(3000, 8)).astype(np.float32)
QUERIES = RNG.normal(size=(400, 8)).astype(np.float32)
TUNING, JUDGING = QUERIES[:200], QUERIES[200:]
NEVER_MS = 1e-6


def choose(**settings: Any) -> IndexChoice:
    return choose_index(VECTORS, TUNING, IndexConfig(k=K, **settings))


def judged_recall(choice: IndexChoice) -> float:
    exact = exact_answers(VECTORS, JUDGING, K)
    found, _ = search_in_batches(choice.index.search, JUDGING, K)
    return float(recall_of_each(VECTORS, exact, found).mean())


@pytest.mark.parametrize("backend", ["scann", "partitioned"])
def test_tuning_reaches_the_target_on_other_queries_without_searching_everything(backend: str):
    choice = choose(backend=backend, leaves=60, recall_target=0.9)
    assert choice.index.backend == backend
    assert 0.88 <= judged_recall(choice) < 1.0
    [taken] = [trial for trial in choice.trials if trial.settings == choice.settings]
    assert taken.reaches(0.9)
    # Cheaper trials miss the target; among the others, only the cost decides.
    for trial in choice.trials:
        assert trial.query_us >= taken.query_us or not trial.reaches(0.9)
    # The index that comes back is the one with these settings.
    assert choice.index.settings.__dict__ == choice.settings  # type: ignore[attr-defined]
    assert "cheapest" in choice.reason


def test_a_higher_target_searches_more():
    low, high = (choose(backend="partitioned", leaves=100, recall_target=t) for t in (0.6, 0.97))
    assert low.settings["blocks_to_search"] < high.settings["blocks_to_search"]


def test_few_of_the_settings_are_tried():
    # Rescoring only k neighbours limits the recall, however many leaves are searched.
    choice = choose(backend="scann", leaves=300, reorder=K, recall_target=0.999)
    searched = [trial.settings["leaves_to_search"] for trial in choice.trials]
    assert searched[-1] == 300
    assert len(searched) <= math.ceil(math.log2(len(list(growing_parts(300))) + 1))
    assert choice.index.backend == "exact"


def test_few_queries_decide_if_the_recall_is_far_from_the_target(monkeypatch: pytest.MonkeyPatch):
    numbers = []

    def counted(search: Any, queries: Any, k: int) -> Any:
        numbers.append(len(queries))
        return search_in_batches(search, queries, k)

    monkeypatch.setattr(index_choice, "search_in_batches", counted)
    config = IndexConfig(k=K, backend="partitioned", leaves=100, recall_target=0.9)
    choice = choose_index(VECTORS, np.tile(TUNING, (5, 1)), config)
    assert set(numbers) == {256, 1000}
    assert numbers.count(1000) < len(choice.trials) == numbers.count(256)
    assert 0.88 <= judged_recall(choice) < 1.0


def test_a_search_that_finds_fewer_than_k_is_not_counted_as_exact():
    # Two or three blocks contain 5% of the best 50, but not 50 candidates for every query.
    choice = choose_index(
        VECTORS, TUNING, IndexConfig(k=50, backend="partitioned", leaves=100, recall_target=0.05)
    )
    short = [trial for trial in choice.trials if trial.num_short]
    assert [trial.settings["blocks_to_search"] for trial in short] == [2, 3]
    assert short[0].recall > 0.05
    assert choice.settings["blocks_to_search"] >= 4


def test_configured_settings_are_not_tuned():
    choice = choose(backend="scann", leaves=20, leaves_to_search=3, reorder=30)
    assert choice.settings == {"leaves": 20, "leaves_to_search": 3, "reorder": 30, "int8": False}
    assert choice.trials == ()
    assert choice.reason == "as configured"
    given = choose(backend="scann", leaves=20, reorder=50)
    assert {trial.settings["reorder"] for trial in given.trials} == {50}
    assert {trial.settings["leaves"] for trial in given.trials} == {20}


def test_if_no_setting_reaches_the_target_the_index_is_exact(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        choice = choose(backend="scann", leaves=50, leaves_to_search=1, recall_target=1.0)
    assert choice.index.backend == "exact"
    assert choice.reason.startswith("exact, because no setting of scann reaches")
    assert "no setting of scann" in caplog.text
    assert choice.trials
    assert judged_recall(choice) == 1.0


def test_auto_chooses_exact_within_the_budget():
    choice = choose(backend="auto", latency_budget_ms=1000)
    assert choice.index.backend == "exact"
    assert "`index.latency_budget_ms` is 1000" in choice.reason


def test_auto_beyond_the_budget_is_scann_or_partitioned(monkeypatch: pytest.MonkeyPatch):
    given = {"leaves": 20, "leaves_to_search": 5, "reorder": 20, "latency_budget_ms": NEVER_MS}
    assert choose(backend="auto", **given).index.backend == "scann"
    monkeypatch.setattr(index_choice.importlib.util, "find_spec", lambda name: None)
    assert choose(backend="auto", **given).index.backend == "partitioned"


def test_auto_tries_partitioned_if_scann_misses_the_target():
    # Rescoring only k neighbours limits the recall of ScaNN; the blocks compare exactly.
    choice = choose(
        backend="auto", leaves=20, reorder=K, recall_target=0.97, latency_budget_ms=NEVER_MS
    )
    assert choice.index.backend == "partitioned"
    assert choice.reason.startswith("exact, because no setting of scann reaches")
    assert "the cheapest of" in choice.reason


@pytest.mark.parametrize(
    ("vectors", "queries", "asked", "chosen", "reason"),
    [
        (VECTORS[:255], TUNING, "scann", "exact", "at least 256 candidates, not 255"),
        (VECTORS, TUNING[:0], "partitioned", "exact", "without queries"),
    ],
    ids=["too few candidates for ScaNN", "no queries to tune with"],
)
def test_what_cannot_be_tuned_is_exact(
    vectors: np.ndarray, queries: np.ndarray, asked: Any, chosen: str, reason: str
) -> None:
    choice = choose_index(vectors, queries, IndexConfig(k=K, backend=asked))
    assert choice.index.backend == chosen
    assert reason in choice.reason


@pytest.mark.parametrize(
    "given",
    [
        *({"backend": "exact", name: 200} for name in ("leaves", "reorder", "int8_above_mb")),
        *({"backend": "partitioned", name: 200} for name in ("reorder", "int8_above_mb")),
        {"leaves": 4, "leaves_to_search": 5},
        {"leaves_to_search": 5},
        {"k": 10, "reorder": 9},
    ],
    ids=str,
)
def test_impossible_settings_and_those_of_another_backend_are_refused(given: dict[str, Any]):
    with pytest.raises(ValueError, match=r"must be|requires"):
        IndexConfig.model_validate(given)


def test_several_leaf_counts_are_tried():
    choice = choose(backend="scann", recall_target=0.5)
    # Once and twice the square root of 3,000.
    assert {trial.settings["leaves"] for trial in choice.trials} == {55, 110}


@pytest.mark.parametrize(("limit_mb", "int8"), [(None, False), (1, False), (0, True)])
def test_int8_is_used_above_the_size_limit(limit_mb: int | None, int8: bool):
    # 3,000 x (4 x 8 + 4 + 4) bytes = 0.12 MB.
    choice = choose(
        backend="scann", leaves=20, leaves_to_search=20, reorder=100, int8_above_mb=limit_mb
    )
    assert choice.settings["int8"] is int8
    assert judged_recall(choice) > 0.9
