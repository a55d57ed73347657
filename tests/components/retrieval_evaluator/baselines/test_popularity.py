import dataclasses

import numpy as np
import pytest

from components.retrieval_evaluator.baselines.popularity import (
    popularity_scores,
    recent_counts,
    repeat_history,
)
from tests.components.retrieval_evaluator.baselines.timelines import histories_of, trained_on


def order(scores: np.ndarray) -> list[int]:
    return np.argsort(-scores, kind="stable").tolist()


def test_popularity_orders_by_count_and_then_by_index():
    scores = popularity_scores(np.array([2, 5, 2, 0, 5]))
    assert order(scores) == [1, 4, 0, 2, 3]


def test_popularity_has_no_ties_even_in_a_large_catalogue():
    count = 2_000_000
    assert len(np.unique(popularity_scores(np.zeros(count, np.int64)))) == count


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param("dc", [2, 3, 0, 1], id="the newest first, and then the most popular"),
        pytest.param("", [0, 1, 2, 3], id="no history"),
        pytest.param("cbc", [2, 1, 0, 3], id="a candidate counts by its newest event"),
        pytest.param("?b", [1, 0, 2, 3], id="unknown candidates are ignored"),
    ],
)
def test_repeat_history_puts_the_history_first(history: str, expected: list[int]) -> None:
    popularity = popularity_scores(np.array([9, 8, 7, 6]))
    before = popularity.copy()
    found = repeat_history(popularity, histories_of([history, "d"])).dense()
    assert [order(row) for row in found] == [expected, [3, 0, 1, 2]]
    np.testing.assert_array_equal(popularity, before)


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
