"""Baselines of a real run, shares worked out by hand, and models that start when asked."""

from __future__ import annotations

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
from pipeline.explore.rankers import Recommended, shares_of, with_reasons
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


@pytest.fixture
def client() -> Any:
    output = SimpleNamespace(shape=(None, 20))
    signature = SimpleNamespace(outputs={"candidate_ids": output})
    return SimpleNamespace(
        metadata=lambda: SimpleNamespace(signatures={"serving_default": signature})
    )


def test_models_start_when_asked_and_the_longest_unused_one_stops(
    tmp_path: Path, client: Any, config: Any
) -> None:
    running: list[int | None] = []

    @contextmanager
    def connect(version: int | None, run: str | None) -> Iterator[Any]:
        running.append(version)
        yield client, AnsweringModel("", version, "newest")
        running.remove(version)

    items = Items(config, Histories(config))
    with Choices(config, items, connect, [1, 2, 3, 4], None, has_runs=True) as choices:
        assert list(choices.labels)[:4] == ["version-4", "version-3", "version-2", "version-1"]
        assert choices.ranker("")[1] == "newest"
        for version in (1, 2, 1, 3):
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
