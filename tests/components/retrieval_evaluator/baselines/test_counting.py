"""Sequential rules, item-kNN and session-kNN on timelines written as words."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from scipy import sparse

from components.retrieval_evaluator.baselines.fitting import make_baselines
from components.retrieval_evaluator.baselines.interface import CooccurrenceScores, TrainingEvents
from components.retrieval_evaluator.baselines.item_knn import ItemKNN
from components.retrieval_evaluator.baselines.over_time import EventLog
from components.retrieval_evaluator.baselines.popularity import popularity_scores
from components.retrieval_evaluator.baselines.sequential_rules import SequentialRules
from components.retrieval_evaluator.baselines.session_knn import SessionKNN
from components.retrieval_evaluator.config import NEED_TIMES, BaselineName
from tests.components.retrieval_evaluator.baselines.timelines import (
    histories_of,
    ranking,
    trained_on,
)


def scored(
    make: Callable[..., Any], timelines: list[str], histories: list[str], size: int, **settings: Any
) -> np.ndarray:
    training = trained_on(timelines, size)
    baseline = make(training, popularity_scores(training.counts), **settings)
    return baseline.scores(histories_of(histories)).dense()


def test_rules_weigh_followers_by_distance():
    # After a: b once at distance 1, c at 2, d at 3; all are seen once.
    scores = scored(SequentialRules, ["abcd"], ["a"], 4, power=0.0)
    assert ranking(scores) == ["bcda"]
    # A tiny part for popularity breaks ties.
    np.testing.assert_allclose(scores[0, 1:], [1, 1 / 2, 1 / 3], rtol=2e-3)


@pytest.mark.parametrize(
    ("timelines", "history", "expected"),
    [
        pytest.param(["ab", "cd"], "c", "dabc", id="rules are directed"),
        pytest.param(["ab", "cd"], "ac", "dbac", id="the newest event weighs most"),
        pytest.param(["ab", "cd"], "ca", "bdac", id="the newest event weighs most, reversed"),
    ],
)
def test_rules_rank_followers(timelines: list[str], history: str, expected: str) -> None:
    assert ranking(scored(SequentialRules, timelines, [history], 4)) == [expected]


def test_rules_end_at_the_window_and_at_the_end_of_a_timeline() -> None:
    assert scored(SequentialRules, ["abcd"], ["a"], 4, window=2)[0, 3] < 0
    assert scored(SequentialRules, ["ab", "cd"], ["b"], 4).max() < 0


def test_rules_damp_popular_candidates():
    # b and c follow a equally often, but b is popular.
    timelines = ["ab", "ac", *["db"] * 8]
    plain = scored(SequentialRules, timelines, ["a"], 4, power=0.0)
    damped = scored(SequentialRules, timelines, ["a"], 4, power=0.5)
    assert ranking(plain)[0][:2] == "bc"
    assert ranking(damped)[0][:2] == "cb"


def test_item_knn_is_cosine_similarity():
    # a and b share two of their 2 and 3 timelines, a and c one of their 2 and 1.
    scores = scored(ItemKNN, ["ab", "abc", "b"], ["a"], 4, shrinkage=0.0)
    np.testing.assert_allclose(scores[0, 1], 2 / np.sqrt(2 * 3), rtol=2e-3)
    np.testing.assert_allclose(scores[0, 2], 1 / np.sqrt(2 * 1), rtol=2e-3)
    assert scores[0, 0] < 0
    assert scores[0, 3] < 0


def test_item_knn_counts_a_repeated_candidate_once():
    once = scored(ItemKNN, ["ab", "ac"], ["a"], 3)
    np.testing.assert_allclose(scored(ItemKNN, ["aabb", "ac"], ["aaa"], 3), once)


def test_item_knn_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    timelines = ["".join(chr(97 + c) for c in rng.integers(0, 9, 6)) for _ in range(30)]
    whole = scored(ItemKNN, timelines, ["abc", "i"], 9, neighbours=4)
    monkeypatch.setattr("models.ranking.cooccurrence._PAIRS_PER_CHUNK", 50)
    np.testing.assert_array_equal(scored(ItemKNN, timelines, ["abc", "i"], 9, neighbours=4), whole)


def test_session_knn_worked_by_hand():
    # History "ab": b weighs 1, a e^-1. "abc" shares both, "bd" only b; lengths 3 and 2.
    scores = scored(
        SessionKNN, ["abc", "bd", "ef"], ["ab"], 6, history_decay=1.0, distance_decay=1.0
    )
    e = np.exp(-1)
    first, second = (1 + e) / np.sqrt(3), 1 / np.sqrt(2)
    # From the shared b, a and c in "abc" are at distance 1, and d in "bd".
    expected = [first * e, first + second, first * e, second * e]
    np.testing.assert_allclose(scores[0, :4], expected, rtol=2e-3)
    assert (scores[0, 4:] < 0).all()


@pytest.mark.parametrize(
    ("make", "timelines", "history", "settings", "better", "worse"),
    [
        (ItemKNN, ["ab", "ab", "ac"], "a", {"neighbours": 1}, "b", "c"),
        (SessionKNN, ["abc", "bd"], "ab", {"neighbours": 1}, "c", "d"),
        # Among equals, the timeline that ended last is taken.
        (SessionKNN, ["ab", "ac"], "a", {"neighbours": 1}, "c", "b"),
        (SessionKNN, ["ab", "ac"], "a", {"occurrences": 1}, "c", "b"),
    ],
)
def test_only_the_nearest_count(
    make: Any, timelines: list[str], history: str, settings: Any, better: str, worse: str
) -> None:
    [scores] = scored(make, timelines, [history], 4, **settings)
    assert scores["abcd".index(better)] > 0 > scores["abcd".index(worse)]


def brute_session_knn(timelines: list[str], history: str, size: int) -> np.ndarray:
    scores = np.zeros(size)
    ages = {letter: len(history) - 1 - history.rindex(letter) for letter in history}
    ages = {letter: age for letter, age in ages.items() if age < 8}
    for timeline in timelines:
        shared = sorted((age, letter) for letter, age in ages.items() if letter in timeline)
        if not shared:
            continue
        similarity = sum(np.exp(-age / 2) for age, _ in shared) / np.sqrt(len(timeline))
        match = timeline.rindex(shared[0][1])
        for index, letter in enumerate(timeline):
            if abs(index - match) <= 12:
                weight = np.exp(-abs(index - match) / 3)
                scores[ord(letter) - 97] += similarity * weight
    return scores


@pytest.mark.parametrize("matches_per_chunk", [1, 40, 1_000_000])
def test_session_knn_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch, matches_per_chunk: int):
    monkeypatch.setattr(
        "components.retrieval_evaluator.baselines.session_knn._MATCHES_PER_CHUNK", matches_per_chunk
    )
    rng = np.random.default_rng(5)
    words = [
        "".join(chr(97 + c) for c in rng.integers(0, 8, rng.integers(1, 20))) for _ in range(40)
    ]
    found = scored(SessionKNN, words[:30], words[30:], 8)
    expected = np.stack([brute_session_knn(words[:30], word, 8) for word in words[30:]])
    np.testing.assert_allclose(np.maximum(found, 0), expected, rtol=2e-3)


ALL: tuple[BaselineName, ...] = get_args(BaselineName)


def scores_of(name: BaselineName, training: TrainingEvents, words: list[str]) -> np.ndarray:
    """Return the scores at the end of training; each candidate has a value that another has."""
    size, end = training.num_candidates, len(training.candidates)
    log = EventLog.of(size, [(training.times, training.candidates)], np.array([end]))
    values = sparse.csr_matrix(np.eye(size)[np.arange(size) // 2 * 2])
    histories = replace(histories_of(words), times=np.full(len(words), end))
    return make_baselines([name], training, log, values)[name](histories).dense()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("histories", [["", ""], ["?"], ["?a?", ""], []])
def test_unknown_and_empty_histories_get_popular_items(name: BaselineName, histories: list[str]):
    scores = scores_of(name, trained_on(["ab", "b", "c"], 4), histories)
    assert scores.shape == (len(histories), 4)
    for history, row in zip(histories, ranking(scores), strict=True):
        if "a" not in history and name not in NEED_TIMES:
            assert row == "bacd"


@pytest.mark.parametrize("name", ALL)
def test_scores_are_finite_without_training_events_and_never_tied(name: BaselineName):
    assert np.isfinite(scores_of(name, trained_on([], 3), ["ab", ""])).all()
    scores = scores_of(name, trained_on(["ab", "ac", "ad", "ba"], 8), ["a", "ab"])
    assert all(len(np.unique(row)) == len(row) for row in scores)


def test_equal_scores_are_not_tied_in_a_large_catalogue():
    popularity = popularity_scores(np.arange(50_000))
    found = sparse.csr_matrix(np.full((1, 50_000), 3.0))
    (row,) = CooccurrenceScores.untied(found, popularity).dense()
    assert len(np.unique(row)) == 50_000
