"""The events that the retriever must not see, because the ranker learns from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.errors import TooFewEventsError
from models.features.spec import EventWeights
from models.input.hold_back import HoldBack
from models.input.timeline_dataset import EVENT_WEIGHT_KEY, TimelineDataset
from models.ranking.training import HeldBackEvents
from tests.builders import feature_spec, write_examples

SPEC = feature_spec(timestamp="t", rating="r")
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
    ("by_time", "before"),
    [
        # Three quarters of the twelve events are at 1 to 7, and two of the rest at 8.
        pytest.param(True, [[1, 2, 3], [], [4], [2, 5, 6, 7]], id="of all timelines"),
        pytest.param(False, [[1, 2, 3], [8], [], [2, 5, 6]], id="of each timeline, rounded up"),
    ],
)
def test_the_newest_quarter_is_held_back(files: list[str], by_time: bool, before: list[list[int]]):
    held_back = HeldBackEvents.read(files, SPEC, 0.25, by_time=by_time)
    seen, wanted = held_back.before, [event for timeline in before for event in timeline]
    assert np.diff(seen.offsets).tolist() == [*map(len, before)]
    assert seen.candidates.tolist() == wanted
    dataset = TimelineDataset(
        files,
        SPEC,
        2,
        0.0,
        1,
        hold_back=held_back.rule,
        weights=EventWeights(ratings={"0": 0, "100": 100}),
    )
    assert dataset.num_timelines == sum(map(bool, before))
    trained = []
    for batch in dataset.epochs(0, 1):
        is_event = batch["item"].numpy() >= 0
        trained += batch["item"].numpy()[is_event].tolist()
        np.testing.assert_allclose(
            batch[EVENT_WEIGHT_KEY].numpy()[is_event], batch["item"].numpy()[is_event], rtol=1e-5
        )
    assert sorted(trained) == sorted(wanted)


def test_events_at_one_time_are_too_few():
    with pytest.raises(TooFewEventsError, match=r"ranking\.enabled"):
        HoldBack.before_time(np.full(50, 7), 0.1)


def test_a_cut_holds_back_all_events_of_its_time():
    rule = HoldBack.before_time(np.array([1, 2, 3, 3, 3]), 0.2)
    assert rule.num_kept(tf.ragged.constant([[1, 2, 3], [3, 3]], tf.int64)).numpy().tolist() == [
        2,
        0,
    ]
