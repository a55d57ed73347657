from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.retrieval_evaluator.baselines import interface
from components.retrieval_evaluator.baselines.interface import (
    CandidateIndex,
    read_training_events,
)
from models.input.raw_examples import RawEvents
from tests.builders import feature_spec, write_examples

CATALOGUE = [b"a", b"b", b"c"]


def index_of(ids: np.ndarray) -> np.ndarray:
    return np.array([CATALOGUE.index(name) if name in CATALOGUE else -1 for name in ids], np.int64)


@pytest.fixture
def file(tmp_path: Path) -> str:
    rows = [("u", "a b", [5, 9]), ("v", "z c", [1, 2]), ("w", "z", [7]), ("x", "c c", [3, 4])]
    return write_examples(
        tmp_path,
        [
            {"user": [user], "item": events.split(), "timestamp": times}
            for user, events, times in rows
        ],
    )


def test_candidates_that_only_events_have_follow_those_of_the_catalogue(file: str):
    index = CandidateIndex(np.array(CATALOGUE, object))
    training, _ = read_training_events([file], UNTIMED, index.add, 3, set())
    assert training.candidates.tolist() == [0, 1, 3, 2, 3, 2, 2]
    assert training.counts.tolist() == [1, 1, 3, 2]
    assert training.num_candidates == 4
    assert index(np.array([b"z", b"b", b"new"], object)).tolist() == [3, 1, -1]


TIMED, UNTIMED = feature_spec(timestamp="time"), feature_spec()


def test_timelines_are_sorted_by_newest_event_and_contain_known_candidates(file: str):
    training, queries = read_training_events([file], TIMED, index_of, 3, {b"v", b"w", b"y"})
    assert training.candidates.tolist() == [2, 2, 2, 0, 1]
    assert training.offsets.tolist() == [0, 1, 3, 5]
    assert training.times is not None
    assert training.times.tolist() == [2, 3, 4, 5, 9]
    assert training.counts.tolist() == [1, 1, 3]
    assert training.timeline_of.tolist() == [0, 1, 1, 2, 2]
    assert queries == {b"v", b"w"}


def test_without_times_timelines_keep_the_order_of_the_file(file: str):
    training, _ = read_training_events([file], UNTIMED, index_of, 3, set())
    assert training.times is None
    assert training.candidates.tolist() == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("batch", [1, 100])
def test_the_newest_timelines_are_kept_but_all_events_are_counted(
    file: str, batch: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interface, "_TIMELINES_PER_BATCH", batch)
    training, _ = read_training_events([file], TIMED, index_of, 3, set(), max_events=2)
    assert training.candidates.tolist() == [0, 1]
    assert training.counts.tolist() == [1, 1, 3]


def test_memory_does_not_grow_with_the_timelines(monkeypatch: pytest.MonkeyPatch):
    batches, batch, catalogue = 50, 1000, 100_000
    offsets = np.arange(batch + 1)

    def read_events(*_: Any) -> Iterator[RawEvents]:
        for first in range(0, batches * batch, batch):
            numbers = np.arange(first, first + batch)
            ids = np.array([b"session %d" % number for number in numbers], object)
            yield RawEvents(ids, (numbers % catalogue).astype(object), None, offsets)

    monkeypatch.setattr(interface, "read_events", read_events)
    wanted = {b"session 7", b"session 49999", b"another"}
    tracemalloc.start()
    try:
        training, known = read_training_events(
            [], UNTIMED, lambda ids: ids.astype(np.int64), catalogue, wanted, max_events=2000
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert known == {b"session 7", b"session 49999"}
    assert training.counts.sum() == batches * batch
    # Counts per batch would take 40 MB, and all ids 3 MB more.
    assert peak < 4 * 8 * catalogue
