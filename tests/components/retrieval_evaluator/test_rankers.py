"""Ranks of dense scores, and sparse rankings with dense ones as the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from components.retrieval_evaluator.baselines.interface import CooccurrenceScores
from components.retrieval_evaluator.baselines.popularity import popularity_scores
from components.retrieval_evaluator.rankers import UNRANKED, DenseRanking, SparseRanking

NOTHING: list[int] = []


def ranks(
    scores: list[list[float]],
    target_rows: list[int],
    targets: list[int],
    excluded_rows: list[int] = NOTHING,
    excluded: list[int] = NOTHING,
) -> list[int]:
    ranking = DenseRanking(np.array(scores, np.float32))
    ranking.exclude(np.array(excluded_rows, np.int64), np.array(excluded, np.int64))
    return ranking.ranks(np.array(target_rows, np.int64), np.array(targets, np.int64)).tolist()


@pytest.mark.parametrize(
    ("scores", "targets", "expected"),
    [
        pytest.param([0.1, 0.9, 0.5], [0, 1, 2], [3, 1, 2], id="the best score has rank one"),
        pytest.param([0.5] * 10, [0, 9], [10, 10], id="a constant model ranks every target last"),
        pytest.param([2.0, 1.0, 1.0, 1.0, 0.0], [2, 0], [4, 1], id="ties count against the target"),
        pytest.param([3.0, 2.0], [-1, 1], [UNRANKED, 2], id="-1 is not the last candidate"),
        pytest.param([np.nan, 2.0, 1.0], [0, 2], [UNRANKED, 2], id="NaN loses to every other"),
        pytest.param([np.inf, 2.0, 1.0], [0, 2], [UNRANKED, 2], id="infinity loses too"),
        pytest.param([1.0, 2.0], [], [], id="no targets"),
    ],
)
def test_ranks_of_one_query(scores: list[float], targets: list[int], expected: list[int]) -> None:
    # An unknown exclusion is ignored.
    assert ranks([scores], [0] * len(targets), targets, [0], [-1]) == expected


def by_sorting(scores: list[float], excluded: set[int], target: int, catalogue: int) -> int:
    if not 0 <= target < catalogue or target in excluded or not np.isfinite(scores[target]):
        return int(UNRANKED)
    left = [s for c, s in enumerate(scores) if c not in excluded and np.isfinite(s)]
    # The last position among equal scores.
    left.sort(reverse=True)
    return len(left) - left[::-1].index(scores[target])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_equals_sorting_one_query_at_a_time(data: st.DataObject):
    queries, catalogue = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    # Few values, so that ties are common.
    score = st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.nan, np.inf, -np.inf])
    table = [
        data.draw(st.lists(score, min_size=catalogue, max_size=catalogue)) for _ in range(queries)
    ]
    pair = st.tuples(st.integers(0, queries - 1), st.integers(-1, catalogue - 1))
    targets, excluded = data.draw(st.lists(pair, max_size=8)), data.draw(st.lists(pair, max_size=8))
    expected = [
        by_sorting(table[row], {c for r, c in excluded if r == row and c >= 0}, target, catalogue)
        for row, target in targets
    ]
    assert expected == ranks(
        table,
        [row for row, _ in targets],
        [target for _, target in targets],
        [row for row, _ in excluded],
        [candidate for _, candidate in excluded],
    )


@pytest.mark.parametrize("kind", ["random", "ascending", "constant", "ties", "excluded"])
def test_the_best_of_a_large_catalogue_equal_those_of_sorting(kind: str):
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(6, 2000)).astype(np.float32)
    if kind == "ascending":
        scores.sort(axis=1)
    if kind == "constant":
        scores[:] = 1.0
    if kind == "ties":
        scores = np.round(scores, 1)
    if kind == "excluded":
        scores[:, 5:] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")
    for k in (3, 10):
        positions, candidates = DenseRanking(scores.copy()).best(k)
        row, position = np.nonzero(np.take_along_axis(scores, best[:, :k], axis=1) > -np.inf)
        assert positions.tolist() == position.tolist()
        assert candidates.tolist() == best[row, position].tolist()


def scores_of(found: list[list[float]], counts: list[int]) -> CooccurrenceScores:
    matrix = sparse.csr_matrix(np.array(found, np.float64).reshape(-1, len(counts)))
    return CooccurrenceScores(matrix, popularity_scores(np.array(counts)))


def listed(positions: np.ndarray, candidates: np.ndarray) -> list[tuple[int, int]]:
    return sorted(zip(positions.tolist(), candidates.tolist(), strict=True))


def test_an_empty_block_is_accepted():
    ranking = SparseRanking(CooccurrenceScores(sparse.csr_matrix((0, 3)), np.ones(3)))
    ranking.exclude(np.zeros(0, int), np.zeros(0, int))
    assert len(ranking.ranks(np.zeros(0, int), np.zeros(0, int))) == 0
    assert listed(*ranking.best(5)) == []


Case = tuple[CooccurrenceScores, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    num_rows, size = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    few = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 2.5])
    found = draw(st.lists(few, min_size=num_rows * size, max_size=num_rows * size))
    counts = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    rows, candidates = st.integers(0, num_rows - 1), st.integers(-1, size - 1)
    excluded, targets = (
        np.array(draw(st.lists(st.tuples(rows, candidates), max_size=20)), np.int64).reshape(-1, 2)
        for _ in range(2)
    )
    scores = scores_of(np.reshape(found, (num_rows, size)).tolist(), counts)
    return scores, excluded[:, 0], excluded[:, 1], targets[:, 0], targets[:, 1]


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(1, 14))
def test_sparse_ranks_and_lists_equal_those_of_dense_scores(case: Case, k: int):
    scores, excluded_rows, excluded, target_rows, targets = case
    sparse_ranking, dense = SparseRanking(scores), DenseRanking(scores.dense())
    for is_excluding in (False, True):
        if is_excluding:
            sparse_ranking.exclude(excluded_rows, excluded)
            dense.exclude(excluded_rows, excluded)
        expected = dense.ranks(target_rows, targets)
        assert sparse_ranking.ranks(target_rows, targets).tolist() == expected.tolist()
        rows_of_best = np.bincount(sparse_ranking.best(k)[0], minlength=k)
        assert rows_of_best.tolist() == np.bincount(dense.best(k)[0], minlength=k).tolist()


@pytest.mark.parametrize("k", [1, 3, 10])
def test_sparse_lists_equal_those_of_dense_scores_without_ties(k: int):
    rng = np.random.default_rng(2)
    found = sparse.random(20, 300, 0.02, format="csr", random_state=rng)
    scores = CooccurrenceScores.untied(found, popularity_scores(rng.integers(0, 9, 300)))
    excluded = rng.integers(0, 20, 400), rng.integers(-1, 300, 400)
    sparse_ranking, dense = SparseRanking(scores), DenseRanking(scores.dense())
    assert listed(*sparse_ranking.best(k)) == listed(*dense.best(k))
    sparse_ranking.exclude(*excluded)
    dense.exclude(*excluded)
    assert listed(*sparse_ranking.best(k)) == listed(*dense.best(k))
