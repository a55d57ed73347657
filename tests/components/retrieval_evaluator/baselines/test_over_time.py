"""Baselines that know the time of a query, with times in days."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from components.retrieval_evaluator.baselines import interface, over_time
from components.retrieval_evaluator.baselines.over_time import EventLog
from components.retrieval_evaluator.baselines.popularity import popularity_scores
from tests.components.retrieval_evaluator.baselines.timelines import (
    histories_of,
    indices,
    ranking,
)

DAY = 86_400
# a was popular on the first day; b, c and d came later.
DAYS = {"a": [0, 0.1, 0.2, 1], "b": [3, 9], "c": [9.5], "d": [10]}
POPULARITY = popularity_scores(np.array([4, 2, 1, 1, 0]))


def seconds(days: list[float]) -> np.ndarray:
    return (np.array(days) * DAY).astype(np.int64)


def log_of(query_days: list[float]) -> EventLog:
    events = [(seconds(days), np.repeat(indices(c), len(days))) for c, days in DAYS.items()]
    return EventLog.of(5, events, seconds(query_days))


def scores(baseline: over_time.RankedOverTime, query_days: list[float]) -> np.ndarray:
    histories = replace(histories_of([""] * len(query_days)), times=seconds(query_days))
    return baseline.scores(histories).dense()


def test_events_of_the_last_seven_days_before_the_query_count_by_age():
    days = [10, 1, 10.5]
    found = scores(over_time.last_days_popularity(log_of(days), POPULARITY), days)
    # On day 10, b has an event that is 1 day old and one that is 7; c has one of half a day. The
    # event of d is not before the query.
    assert found[0, 1] == pytest.approx(0.5 + 0.5**7, rel=1e-5)
    assert found[0, 2] == pytest.approx(0.5**0.5, rel=1e-5)
    # On day 10.5, d leads with an event of half a day, before c with one of a day.
    assert ranking(found) == ["cbade", "abcde", "dcbae"]


def test_the_newest_candidates_before_the_query_come_first():
    days = [10, 1, 11]
    newest = over_time.newest(log_of(days), POPULARITY)
    assert ranking(scores(newest, days)) == ["cbade", "abcde", "dcbae"]


def test_a_query_uses_the_last_of_few_moments_that_is_not_after_it():
    times = np.random.default_rng(1).integers(0, 10**9, 5000)
    log = EventLog.of(3, [(times, times % 3)], times)
    assert 32 <= len(log.moments) <= 64
    moments = log.moment_of(times)
    assert (log.moments[moments] <= times).all()
    assert (np.append(log.moments, 10**9)[moments + 1] > times).all()
    assert np.bincount(moments).max() <= 80


def test_only_the_best_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interface, "KEPT", 1)
    newest = over_time.newest(log_of([11]), POPULARITY)
    assert ranking(scores(newest, [11])) == ["dabce"]


def test_discounts_rank_candidates_by_recent_events():
    (found,) = over_time.discounts_over_time(log_of([11]), POPULARITY)
    ages = {"a": [11, 10.9, 10.8, 10], "b": [8, 2], "c": [1.5], "d": [1], "e": []}
    activity = {name: sum(0.5 ** (age / 7) for age in of) for name, of in ages.items()}
    order = sorted(activity, key=lambda name: -activity[name])
    assert order == ["a", "b", "d", "c", "e"]
    for rank, name in enumerate(order, start=1):
        assert found[indices(name)[0]] == pytest.approx(1 / np.log2(1 + rank))
    (by_popularity,) = over_time.discounts_over_time(None, POPULARITY)
    np.testing.assert_allclose(by_popularity, 1 / np.log2(np.arange(2, 7)), rtol=1e-6)
