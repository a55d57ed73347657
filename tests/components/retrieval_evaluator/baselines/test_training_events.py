from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.retrieval_evaluator.baselines.training_events import read_training_events
from models.features import FeatureSpec

CATALOGUE = [b"a", b"b", b"c"]


def index_of(ids: np.ndarray) -> np.ndarray:
    return np.array([CATALOGUE.index(name) if name in CATALOGUE else -1 for name in ids], np.int64)


@pytest.fixture
def file(write_examples: Callable[..., str], tmp_path: Path) -> str:
    rows = [("u", "a b", [5, 9]), ("v", "z c", [1, 2]), ("w", "z", [7]), ("x", "c c", [3, 4])]
    return write_examples(
        tmp_path,
        [
            {"user": [user], "item": events.split(), "timestamp": times}
            for user, events, times in rows
        ],
    )


def spec(timestamp: str | None) -> FeatureSpec:
    columns = {"query_id": "user", "candidate_id": "item", "timestamp": timestamp}
    return FeatureSpec.model_validate({"columns": columns})


def test_timelines_stand_by_their_newest_event_and_hold_what_the_catalogue_has(file: str):
    training, queries = read_training_events([file], spec("time"), index_of, 3)
    assert training.candidates.tolist() == [2, 2, 2, 0, 1]
    assert training.offsets.tolist() == [0, 1, 3, 5]
    assert training.times is not None
    assert training.times.tolist() == [2, 3, 4, 5, 9]
    assert training.counts.tolist() == [1, 1, 3]
    assert training.timeline_of.tolist() == [0, 1, 1, 2, 2]
    assert queries == {b"u", b"v", b"w", b"x"}


def test_without_times_the_order_is_that_of_the_file(file: str):
    training, _ = read_training_events([file], spec(None), index_of, 3)
    assert training.times is None
    assert training.candidates.tolist() == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("batch", [1, 100])
def test_of_too_many_events_the_newest_timelines_are_kept_and_all_are_counted(
    file: str, batch: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "components.retrieval_evaluator.baselines.training_events._TIMELINES_A_BATCH", batch
    )
    training, _ = read_training_events([file], spec("time"), index_of, 3, max_events=2)
    assert training.candidates.tolist() == [0, 1]
    assert training.counts.tolist() == [1, 1, 3]
