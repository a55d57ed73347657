"""Baselines of a real run, shares worked out by hand, and models that start when asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.config.file import load
from pipeline.errors import ReleaseError
from pipeline.explore.choices import Choices
from pipeline.explore.rankers import Recommended, ServedModel, shares_of, with_reasons
from pipeline.explore.source import Histories, Items
from pipeline.releases.answering_model import AnsweringModel
from serving.clients.query import Query


class SumRanker:
    """Scores are the sum of the weights of the history, plus one."""

    max_left_out = 2

    def __init__(self) -> None:
        self.queries: list[Query] = []

    def scores(self, queries: Sequence[Query], candidates: Sequence[str]) -> Any:
        self.queries = list(queries)
        weights = {"a": 3.0, "b": -1.0, "c": 0.5, "old": 9.0}
        sums = [1 + sum(weights[item] for item in query.history) for query in queries]
        return np.array([[total] * len(candidates) for total in sums])


def test_a_share_is_the_change_without_an_item_among_the_newest_ones() -> None:
    ranker: Any = SumRanker()
    features = {"age": 3, "history_types": ["1", "2", "3", "4", "5"]}
    query = Query(history=["old", "c", "b", "a", "b"], features=features, exclude=["a"])
    left_out, shares = shares_of(ranker, query, ["x", "y"], max_history=3)
    # `b` occurs twice, and `c` is older than the two items that are left out.
    assert left_out == ["b", "a"]
    np.testing.assert_allclose(shares, [[-2 / 5] * 2, [3 / 5] * 2])
    without_b = Query(history=["a"], features={"age": 3, "history_types": ["4"]})
    assert ranker.queries[1] == without_b  # the types stay with their events
    (x, y) = with_reasons([Recommended("x", 1.0), Recommended("y", 1.0)], left_out, shares)
    assert x.reasons == y.reasons == [("a", 0.6)]
    assert shares_of(ranker, Query(), ["x"], max_history=3)[0] == []


class MeanRanker:
    """Scores are the mean of the weights of the history, as of a mean encoder; 0 without one."""

    max_left_out = 8
    weights = {"a": 4.0, "b": 2.0, "c": -3.0}

    def scores(self, queries: Sequence[Query], candidates: Sequence[str]) -> Any:
        means = [self.score(query.history) for query in queries]
        return np.array([[mean] * len(candidates) for mean in means])

    def score(self, history: Sequence[str]) -> float:
        return float(np.mean([self.weights[item] for item in history])) if history else 0.0


def test_shares_of_a_short_history_tell_two_items_of_a_mean_apart() -> None:
    ranker: Any = MeanRanker()
    items, shares = shares_of(ranker, Query(history=["a", "b"]), ["x"], max_history=9)
    assert items == ["b", "a"]
    # `a` adds 4 to an empty history and 3 - 2 to `b`; `b` adds 2 and 3 - 4.
    np.testing.assert_allclose(shares[:, 0], [0.5 / 3, 2.5 / 3])


def test_shares_of_a_short_history_are_means_over_all_orders() -> None:
    ranker: Any = MeanRanker()
    history = ["a", "c", "b", "a"]
    items, shares = shares_of(ranker, Query(history=history), ["x", "y"], max_history=9)

    def score(known: Sequence[str]) -> float:
        return MeanRanker().score([item for item in history if item in known])

    changes = dict.fromkeys(items, 0.0)
    for order in itertools.permutations(items):
        for number, item in enumerate(order):
            changes[item] += score(order[: number + 1]) - score(order[:number])
    total = sum(map(abs, changes.values()))
    for share, item in zip(shares, items, strict=True):
        np.testing.assert_allclose(share, changes[item] / total)
    assert sum(changes.values()) == pytest.approx(6 * score(history))


@pytest.fixture
def client() -> Any:
    output = SimpleNamespace(shape=(None, 20))
    signature = SimpleNamespace(outputs={"candidate_ids": output})
    return SimpleNamespace(
        metadata=lambda: SimpleNamespace(signatures={"serving_default": signature})
    )


def test_a_model_is_asked_for_the_history_that_the_page_shows(config: Any, client: Any) -> None:
    asked: list[Query] = []
    answer = SimpleNamespace(candidate_ids=(), scores=(), fields={})
    client.recommend = lambda queries, k: asked.extend(queries) or [answer]
    model = ServedModel(client, config, Items(config, Histories(config)))
    typed = {"history_types": []}
    queries = [Query("7", ["a"]), Query(""), Query("7", features=typed, exclude=["b"])]
    for query in queries:
        model.recommend(query, 5)
    # A known query without a history gets an unknown candidate, so that no stored one replaces it.
    assert asked[:2] == queries[:2]
    assert len(asked[2].history) == len(asked[2].features["history_types"]) == 1
    assert asked[2].exclude == ("b",)


def test_models_start_when_asked_and_the_longest_unused_one_stops(
    tmp_path: Path, client: Any, config: Any
) -> None:
    running: list[int | None] = []

    @contextmanager
    def connect(version: int | None, run: str | None) -> Iterator[Any]:
        running.append(version)
        yield client, AnsweringModel("", version or 4, "newest")
        running.remove(version)

    items = Items(config, Histories(config))
    with Choices(config, items, connect, [1, 2, 3, 4], None, has_runs=True) as choices:
        assert list(choices.labels)[:4] == ["version-4", "version-3", "version-2", "version-1"]
        assert choices.ranker("")[1] == "model version 4, newest"
        for version in (1, 2, 4, 1, 3):  # version 4 has started as the default model
            choices.ranker(f"version-{version}")
        assert running == [None, 1, 3]
        with pytest.raises(ReleaseError, match="no model or baseline 'version-9'"):
            choices.ranker("version-9")
    assert running == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["popularity", "item_knn", "ease"])
def test_a_baseline_ranks_by_the_training_events_of_a_run(
    finished_run: dict[str, Any], name: str
) -> None:
    config = load(str(finished_run["config_path"]), [])
    histories = Histories(config)
    items = Items(config, histories)
    none: Any = None
    with Choices(config, items, none, [], None, has_runs=False) as choices:
        ranker, label = choices.ranker(f"baseline-{name}")
    assert label == f"baseline {name}"
    history = histories.of("user 1")
    query = Query("user 1", history, exclude=[*history, "item é4"], filters={})
    found = [of.item for of in ranker.recommend(query, 15)]
    assert len(set(found)) == 15
    assert not {*history, "item é4"} & set(found)
    _, shares = shares_of(ranker, query, found[:3], 512)
    if name == "popularity":
        assert not shares.any()
    else:
        assert all(int(item.removeprefix("item é")) < 30 for item in found)
        assert shares.max() > 0
