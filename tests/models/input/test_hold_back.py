"""The events that the retriever must not see, because the ranker learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.errors import TooFewEventsError
from models.features.spec import EventWeights
from models.input.hold_back import HoldBack
from models.input.timeline_dataset import EVENT_WEIGHT_KEY, TimelineDataset
from models.ranking.config import RankingConfig
from models.ranking.held_back_events import HeldBackEvents
from tests.builders import feature_spec, write_examples

SPEC = feature_spec(timestamp="t", rating="r")
QUARTER = RankingConfig(held_back_fraction=0.25)
# The candidate of an event is its time, so that a batch shows which events it has.
TIMES = [[1, 2, 3, 9], [8, 10], [4], [2, 5, 6, 7, 8]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder: Path = tmp_path_factory.mktemp("timelines")
    rows = [
        {"user": [0], "item": times, "timestamp": times, "rating": [float(t) for t in times]}
        for times in TIMES
    ]
    return [write_examples(folder, rows)]


@pytest.mark.parametrize(
    ("split", "before"),
    [
        # Three quarters of the twelve events are at 1 to 7, and two of the rest at 8.
        pytest.param("temporal", [[1, 2, 3], [], [4], [2, 5, 6, 7]], id="of all timelines"),
        pytest.param(
            "leave_last_out", [[1, 2, 3], [8], [], [2, 5, 6]], id="of each timeline, rounded up"
        ),
    ],
)
def test_the_newest_quarter_is_held_back(files: list[str], split: Any, before: list[list[int]]):
    held_back = HeldBackEvents.read(files, SPEC, QUARTER, split)
    wanted = [event for timeline in before for event in timeline]
    assert np.diff(held_back.before.offsets).tolist() == [*map(len, before)]
    assert held_back.before.candidates.tolist() == wanted
    assert trained_events(files, held_back) == sorted(wanted)
    # The fourth timeline's event at 8 is predicted from all before it.
    candidates = held_back.events.candidates
    assert candidates[held_back.history(3, 11)].tolist() == [2, 5, 6, 7]


def test_random_events_are_held_back_and_predicted_from_all_others(tmp_path: Path):
    rng = np.random.default_rng(1)
    timelines = [rng.choice(400, 20).tolist() for _ in range(60)]
    rows = [
        {"user": [0], "item": items, "timestamp": [*range(20)], "rating": [*map(float, items)]}
        for items in timelines
    ]
    files = [write_examples(tmp_path, rows)]
    held_back = HeldBackEvents.read(files, SPEC, QUARTER, "random")
    assert 0.7 < held_back.is_kept.mean() < 0.8
    assert trained_events(files, held_back) == sorted(held_back.before.candidates.tolist())
    for timeline, items in enumerate(timelines):
        kept = held_back.is_kept[20 * timeline : 20 * timeline + 20]
        read = held_back.history(timeline, 20 * timeline)
        assert held_back.events.candidates[read].tolist() == [
            item for item, is_kept in zip(items, kept, strict=True) if is_kept
        ]
        # Repeated candidates have the same fate, or one would reveal the other.
        assert not {*np.array(items)[kept]} & {*np.array(items)[~kept]}


def trained_events(files: list[str], held_back: HeldBackEvents) -> list[int]:
    """Return the candidates of all events that a retriever is trained with."""
    weights = EventWeights(ratings={"0": 0, "1000": 1000})
    dataset = TimelineDataset(files, SPEC, 2, 0.0, 1, hold_back=held_back.rule, weights=weights)
    assert dataset.num_timelines == np.count_nonzero(np.diff(held_back.before.offsets))
    trained: list[int] = []
    for batch in dataset.epochs(0, 1):
        is_event = batch["item"].numpy() >= 0
        trained += batch["item"].numpy()[is_event].tolist()
        np.testing.assert_allclose(
            batch[EVENT_WEIGHT_KEY].numpy()[is_event], batch["item"].numpy()[is_event], rtol=1e-5
        )
    return sorted(trained)


def test_events_at_one_time_are_too_few():
    with pytest.raises(TooFewEventsError, match=r"ranking\.enabled"):
        HoldBack.of("temporal", 0.1, np.full(50, 7))


def test_a_cut_holds_back_all_events_of_its_time():
    rule = HoldBack.of("temporal", 0.2, np.array([1, 2, 3, 3, 3]))
    times = tf.ragged.constant([[1, 2, 3], [3, 3]], tf.int64)
    assert rule.is_kept(times, times).to_list() == [[True, True, False], [False, False]]
