import dataclasses

import numpy as np
import pytest

from components.retrieval_evaluator.baselines.cooccurrence_scores import Histories
from components.retrieval_evaluator.baselines.popularity import (
    popularity_scores,
    recent_counts,
    repeat_history,
)
from tests.components.retrieval_evaluator.baselines.timelines import trained_on


def order(scores: np.ndarray) -> list[int]:
    return np.argsort(-scores, kind="stable").tolist()


def test_popularity_orders_by_count_and_then_by_index():
    scores = popularity_scores(np.array([2, 5, 2, 0, 5]))
    assert order(scores) == [1, 4, 0, 2, 3]


def test_popularity_has_no_ties_even_in_a_large_catalogue():
    count = 2_000_000
    assert len(np.unique(popularity_scores(np.zeros(count, np.int64)))) == count


def repeated(counts: list[int], histories: list[list[int]]) -> list[list[int]]:
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    events = np.array([event for history in histories for event in history], np.int64)
    given = Histories(len(histories), rows, events)
    popularity = popularity_scores(np.array(counts))
    before = popularity.copy()
    found = [order(row) for row in repeat_history(popularity, given).dense()]
    np.testing.assert_array_equal(popularity, before)
    return found


def test_repeat_history_puts_the_newest_first_and_popularity_after():
    found = repeated([9, 8, 7, 6], [[3, 2], [], [1]])
    assert found == [[2, 3, 0, 1], [0, 1, 2, 3], [1, 0, 2, 3]]


def test_repeat_history_counts_a_candidate_by_its_newest_event():
    assert repeated([3, 2, 1], [[2, 1, 2]]) == [[2, 1, 0]]


def test_repeat_history_ignores_unknown_candidates():
    assert repeated([3, 2, 1], [[-1, 1]]) == [[1, 0, 2]]


def test_recent_popularity_discounts_old_events():
    old, new = "a" * 60, "b" * 20
    training = trained_on([old, new], num_candidates=3)
    counts = recent_counts(training)
    assert order(popularity_scores(training.counts)) == [0, 1, 2]
    assert order(popularity_scores(counts)) == [1, 0, 2]
    # With 80 events, the half-life is 4.
    assert counts[1] == pytest.approx(sum(0.5 ** (age / 4) for age in range(20)))


def test_recent_popularity_needs_times():
    without = dataclasses.replace(trained_on(["ab"], num_candidates=2), times=None)
    with pytest.raises(ValueError, match="timestamp"):
        recent_counts(without)
