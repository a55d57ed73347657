import dataclasses

import numpy as np
import pytest

from components.retrieval_evaluator.baselines.popularity import (
    popularity_scores,
    recent_counts,
    repeat_history_scores,
)
from tests.components.retrieval_evaluator.baselines.timelines import trained_on


def order(scores: np.ndarray) -> list[int]:
    return np.argsort(-scores, kind="stable").tolist()


def test_popularity_orders_by_count_and_then_by_place():
    scores = popularity_scores(np.array([2, 5, 2, 0, 5]))
    assert order(scores) == [1, 4, 0, 2, 3]


def test_popularity_has_no_ties_even_in_a_large_catalogue():
    # Ties count against whoever has them.
    count = 2_000_000
    assert len(np.unique(popularity_scores(np.zeros(count, np.int64)))) == count


def test_popularity_of_an_empty_catalogue_is_empty():
    assert popularity_scores(np.zeros(0, np.int64)).shape == (0,)


def test_repeat_history_puts_the_newest_first_and_popularity_after():
    popularity = popularity_scores(np.array([9, 8, 7, 6]))
    scores = repeat_history_scores(
        popularity, np.array([0, 0, 2]), np.array([3, 2, 1]), num_queries=3
    )
    assert [order(row) for row in scores] == [[2, 3, 0, 1], [0, 1, 2, 3], [1, 0, 2, 3]]


def test_repeat_history_counts_a_candidate_by_its_newest_event():
    popularity = popularity_scores(np.array([3, 2, 1]))
    scores = repeat_history_scores(popularity, np.zeros(3, np.int64), np.array([2, 1, 2]), 1)
    assert order(scores[0]) == [2, 1, 0]


def test_repeat_history_passes_over_unknown_candidates():
    popularity = popularity_scores(np.array([3, 2, 1]))
    scores = repeat_history_scores(popularity, np.zeros(2, np.int64), np.array([-1, 1]), 1)
    assert order(scores[0]) == [1, 0, 2]


def test_repeat_history_does_not_change_popularity():
    popularity = popularity_scores(np.array([3, 2, 1]))
    before = popularity.copy()
    repeat_history_scores(popularity, np.zeros(1, np.int64), np.array([2]), 1)
    np.testing.assert_array_equal(popularity, before)


def test_recent_popularity_forgets_what_was_popular_long_ago():
    old, new = "a" * 60, "b" * 20
    training = trained_on([old, new], num_candidates=3)
    counts = recent_counts(training)
    assert order(popularity_scores(training.counts)) == [0, 1, 2]
    assert order(popularity_scores(counts)) == [1, 0, 2]
    # 80 events: one counts half after 4.
    assert counts[1] == pytest.approx(sum(0.5 ** (age / 4) for age in range(20)))


def test_recent_popularity_needs_times():
    without = dataclasses.replace(trained_on(["ab"], num_candidates=2), times=None)
    with pytest.raises(ValueError, match="timestamp"):
        recent_counts(without)
