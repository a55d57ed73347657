"""Ranks from what was found alone are those of a score for every candidate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from components.retrieval_evaluator.baselines.cooccurrence_scores import CountedScores
from components.retrieval_evaluator.baselines.popularity import popularity_scores
from components.retrieval_evaluator.counted_ranking import CountedRanking
from components.retrieval_evaluator.ranking import UNRANKED, DenseRanking


def scores_of(found: list[list[float]], counts: list[int]) -> CountedScores:
    matrix = sparse.csr_matrix(np.array(found, np.float64).reshape(-1, len(counts)))
    return CountedScores(matrix, popularity_scores(np.array(counts)))


def listed(places: np.ndarray, candidates: np.ndarray) -> list[tuple[int, int]]:
    return sorted(zip(places.tolist(), candidates.tolist(), strict=True))


def test_found_ones_come_first_and_then_what_is_popular():
    ranking = CountedRanking(scores_of([[0, 0, 3, 5], [0, 0, 0, 0]], [4, 9, 1, 1]))
    everything = np.arange(4)
    assert ranking.ranks(np.zeros(4, int), everything).tolist() == [4, 3, 2, 1]
    assert ranking.ranks(np.ones(4, int), everything).tolist() == [2, 1, 3, 4]
    assert listed(*ranking.best(2)) == [(0, 1), (0, 3), (1, 0), (1, 2)]


def test_a_tie_counts_against_whoever_has_it():
    ranking = CountedRanking(scores_of([[2, 2, 0, 2]], [1, 1, 1, 1]))
    assert ranking.ranks(np.zeros(2, int), np.array([0, 3])).tolist() == [3, 3]


def test_an_excluded_or_unknown_target_is_unranked():
    ranking = CountedRanking(scores_of([[1, 0, 0]], [1, 2, 3]))
    ranking.exclude(np.zeros(3, int), np.array([0, 2, -1]))
    found = ranking.ranks(np.zeros(4, int), np.array([0, 1, 2, -1]))
    assert found.tolist() == [UNRANKED, 1, UNRANKED, UNRANKED]
    assert listed(*ranking.best(3)) == [(0, 1)]


def test_a_block_of_nothing_is_no_error():
    ranking = CountedRanking(CountedScores(sparse.csr_matrix((0, 3)), np.ones(3)))
    ranking.exclude(np.zeros(0, int), np.zeros(0, int))
    assert len(ranking.ranks(np.zeros(0, int), np.zeros(0, int))) == 0
    assert listed(*ranking.best(5)) == []


@st.composite
def cases(draw: st.DrawFn) -> tuple[CountedScores, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    num_questions, size = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    few = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 2.5])
    found = draw(st.lists(few, min_size=num_questions * size, max_size=num_questions * size))
    counts = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    rows, candidates = st.integers(0, num_questions - 1), st.integers(-1, size - 1)
    excluded, targets = (
        np.array(draw(st.lists(st.tuples(rows, candidates), max_size=20)), np.int64).reshape(-1, 2)
        for _ in range(2)
    )
    scores = scores_of(np.reshape(found, (num_questions, size)).tolist(), counts)
    return scores, excluded[:, 0], excluded[:, 1], targets[:, 0], targets[:, 1]


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(1, 14))
def test_ranks_and_lists_are_those_of_dense_scores(case: tuple, k: int):
    scores, excluded_rows, excluded, target_rows, targets = case
    counted, dense = CountedRanking(scores), DenseRanking(scores.dense())
    for is_excluding in (False, True):
        if is_excluding:
            counted.exclude(excluded_rows, excluded)
            dense.exclude(excluded_rows, excluded)
        expected = dense.ranks(target_rows, targets)
        assert counted.ranks(target_rows, targets).tolist() == expected.tolist()
        rows_of_best = np.bincount(counted.best(k)[0], minlength=k)
        assert rows_of_best.tolist() == np.bincount(dense.best(k)[0], minlength=k).tolist()


@pytest.mark.parametrize("k", [1, 3, 10])
def test_lists_are_those_of_dense_scores_where_nothing_is_tied(k: int):
    rng = np.random.default_rng(2)
    found = sparse.random(20, 300, 0.02, format="csr", random_state=rng)
    scores = CountedScores.untied(found, popularity_scores(rng.integers(0, 9, 300)))
    excluded = rng.integers(0, 20, 400), rng.integers(-1, 300, 400)
    counted, dense = CountedRanking(scores), DenseRanking(scores.dense())
    assert listed(*counted.best(k)) == listed(*dense.best(k))
    counted.exclude(*excluded)
    dense.exclude(*excluded)
    assert listed(*counted.best(k)) == listed(*dense.best(k))
