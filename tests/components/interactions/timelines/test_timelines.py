from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.interactions.splits.assignment import EVAL, TEST, TRAIN
from components.interactions.timelines.timelines import (
    Timelines,
    held_out_timelines,
    train_timelines,
)


def show(timelines: Timelines) -> list[str]:
    """Each timeline as places, targets with a star."""
    marks = [
        f"{place}{'*' if target else ''}"
        for place, target in zip(timelines.positions, timelines.is_target, strict=True)
    ]
    offsets = timelines.offsets
    return [" ".join(marks[start:end]) for start, end in pairwise(offsets)]


def codes(*values: int) -> np.ndarray:
    return np.array(values, np.int8)


def test_windows_end_at_the_newest_event():
    queries = np.array([0] * 7 + [1] * 3)
    found = train_timelines(queries, np.zeros(10, np.int8), max_events=3)
    assert show(found) == ["0", "1 2 3", "4 5 6", "7 8 9"]
    assert found.num_cut == 1


def test_training_sees_no_event_of_a_later_split():
    queries = np.array([0, 0, 0, 1, 1])
    found = train_timelines(queries, codes(TRAIN, EVAL, TRAIN, TEST, EVAL), max_events=9)
    assert show(found) == ["0 2"]


def test_evaluation_has_history_and_targets_of_queries_with_targets():
    queries = np.array([3, 3, 3, 1, 1, 2])
    splits = codes(TRAIN, EVAL, TRAIN, TRAIN, TEST, EVAL)
    assert show(held_out_timelines(queries, splits, EVAL, 9)) == ["0 1* 2", "5*"]


def test_history_of_test_holds_the_events_of_eval():
    queries = np.array([0, 0, 0, 1])
    splits = codes(TRAIN, EVAL, TEST, EVAL)
    assert show(held_out_timelines(queries, splits, TEST, 9)) == ["0 1 2*"]


def test_long_evaluation_keeps_all_targets_and_the_newest_history():
    queries = np.array([0] * 6 + [1] * 4)
    splits = codes(TRAIN, EVAL, TRAIN, TRAIN, EVAL, TRAIN, EVAL, EVAL, EVAL, TRAIN)
    found = held_out_timelines(queries, splits, EVAL, 2)
    # Query 0 sheds the oldest two of four; query 1 has one event of history.
    assert show(found) == ["1* 3 4* 5", "6* 7* 8* 9"]
    assert found.num_cut == 1


def test_targets_do_not_reduce_the_history():
    found = held_out_timelines(np.zeros(5, int), codes(TRAIN, TRAIN, EVAL, EVAL, EVAL), EVAL, 2)
    assert show(found) == ["0 1 2* 3* 4*"]
    assert found.num_cut == 0


def test_no_events_make_no_timelines():
    none = np.zeros(0, np.int64)
    assert show(train_timelines(none, codes(), 5)) == []
    assert show(train_timelines(np.array([0]), codes(EVAL), 5)) == []
    assert show(held_out_timelines(none, codes(), EVAL, 5)) == []
    assert show(held_out_timelines(np.array([0]), codes(TRAIN), EVAL, 5)) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40), st.integers(2, 8))
def test_each_event_is_once_in_train_or_a_target(events: list[tuple[int, int]], max_events: int):
    events.sort(key=lambda event: event[0])
    queries = np.array([query for query, _ in events], np.int64)
    splits = np.array([split for _, split in events], np.int8)
    train = train_timelines(queries, splits, max_events)
    found = train.positions.tolist()
    for split in (EVAL, TEST):
        held_out = held_out_timelines(queries, splits, split, max_events)
        found += held_out.positions[held_out.is_target].tolist()
        assert (splits[held_out.positions[~held_out.is_target]] < split).all()
    assert sorted(found) == list(range(len(events)))
    assert (np.diff(train.offsets) <= max_events).all()
