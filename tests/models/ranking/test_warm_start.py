"""Warm start of the ranker after the feature values have changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.ranking.config import RankingConfig, TaskConfig
from models.ranking.ranker import Ranker
from models.ranking.saved_stage import StageSettings, save_stage
from models.ranking.tasks import Task
from models.ranking.warm_start import restore_ranker
from tests.builders import feature_spec, ranking_tables

SPEC = feature_spec(
    query={"age": {"kind": "numeric", "buckets": 3}},
    candidate={"genres": {"kind": "categorical"}, "year": {"kind": "numeric"}},
)
# Vocabularies are ordered by frequency, so new data changes the order.
OLD, NEW = [b"drama", b"noir", b"gone"], [b"new", b"noir", b"drama", b"newer"]
RATING = Task.of("rating", TaskConfig(), np.array([1.0, 5.0], np.float32))


def make_ranker(values: list[bytes], **changed: Any) -> tuple[Ranker, StageSettings]:
    config = RankingConfig(**{"hidden_layers": (3,), **changed.pop("config", {})})
    settings = StageSettings(
        **{
            **config.model_dump(include={"model", "hidden_layers"}),
            "num_candidates": 9,
            "exclude_seen": True,
            "features": ("score", "rating", "rating_query", "rating_candidate"),
            "declared": {"age": 3, "genres": len(values) + 1, "year": 0},
            "tasks": (RATING,),
            **changed,
        }
    )
    made = settings.features, SPEC.features, settings.declared, settings.tasks
    return Ranker(settings.architecture, *made), settings


@pytest.fixture
def earlier(tmp_path: Path) -> tuple[Ranker, str]:
    ranker, settings = make_ranker(OLD)
    save_stage(str(tmp_path), settings, ranking_tables([[0, 1]], 2), {}, ranker)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "genres").write_bytes(b"".join(value + b"\n" for value in OLD))
    return ranker, str(tmp_path)


def restore(ranker: Ranker, settings: StageSettings, directory: str) -> str | None:
    return restore_ranker(ranker, settings, directory, SPEC, {"item": [], "genres": NEW})


def test_weights_are_copied_and_rows_matched_by_their_values(earlier: tuple[Ranker, str]):
    old, directory = earlier
    # Neither the number of candidates nor the moments of a label change the meaning of weights.
    again = RATING.model_copy(update={"mean": 4.0, "weight": 2.0})
    ranker, settings = make_ranker(NEW, num_candidates=50, tasks=(again,))
    table = ranker.of_candidates.table("genres")
    before = table.numpy()
    assert restore(ranker, settings, directory) == directory
    was = old.of_candidates.table("genres").numpy()
    np.testing.assert_array_equal(table[:4], [before[0], was[1], was[0], before[3]])
    np.testing.assert_array_equal(table[-1], was[-1])
    for layer in (ranker.network, ranker.of_queries):
        same = old.network if layer is ranker.network else old.of_queries
        for one, other in zip(layer.get_weights(), same.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": {"hidden_layers": (5,)}}, "hidden_layers was (3,) and is (5,)"),
        ({"features": ("score", "rank")}, "features was ['score', 'rating'"),
        ({"declared": {"age": 4, "genres": 5, "year": 0}}, "declared features was [('age', 3)"),
        ({"tasks": ()}, "tasks was [['rating', 'squared_error', None, None]] and is []"),
    ],
)
def test_a_ranker_with_another_meaning_starts_from_random_weights(
    earlier: tuple[Ranker, str],
    caplog: pytest.LogCaptureFixture,
    changed: dict[str, Any],
    message: str,
):
    if "features" in changed:
        changed = {**changed, "tasks": ()}
    ranker, settings = make_ranker(NEW, **changed)
    before = ranker.get_weights()
    with caplog.at_level(logging.INFO):
        assert restore(ranker, settings, earlier[1]) is None
    assert message in caplog.text
    for one, other in zip(ranker.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_earlier_model_without_a_ranker_is_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        assert restore(*make_ranker(NEW), str(tmp_path)) is None
    assert "it has no ranker" in caplog.text
