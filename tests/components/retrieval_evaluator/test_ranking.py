import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.retrieval_evaluator.ranking import UNRANKED, target_ranks

NOTHING: list[int] = []


def ranks(
    scores: list[list[float]],
    target_rows: list[int],
    targets: list[int],
    excluded_rows: list[int] = NOTHING,
    excluded: list[int] = NOTHING,
) -> list[int]:
    as_indices = (
        np.array(values, np.int64) for values in (excluded_rows, excluded, target_rows, targets)
    )
    return target_ranks(np.array(scores, np.float32), *as_indices).tolist()


def test_best_score_has_rank_one():
    assert ranks([[0.1, 0.9, 0.5]], [0, 0, 0], [0, 1, 2]) == [3, 1, 2]


def test_targets_are_ranked_within_their_own_query():
    assert ranks([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]], [0, 1, 1], [2, 2, 0]) == [3, 1, 3]


def test_a_constant_model_ranks_every_target_last():
    assert ranks([[0.5] * 10], [0, 0], [0, 9]) == [10, 10]


def test_a_tie_counts_against_the_target():
    assert ranks([[2.0, 1.0, 1.0, 1.0, 0.0]], [0, 0], [2, 0]) == [4, 1]


def test_excluded_candidates_do_not_stand_before_a_target():
    assert ranks([[3.0, 2.0, 1.0]], [0], [2], [0, 0], [0, 1]) == [1]


def test_exclusion_concerns_its_own_query_only():
    scores = [[3.0, 2.0], [3.0, 2.0]]
    assert ranks(scores, [0, 1], [1, 1], [0], [0]) == [1, 2]


def test_an_excluded_target_is_unranked():
    assert ranks([[3.0, 2.0]], [0], [0], [0], [0]) == [UNRANKED]


def test_an_unknown_target_is_unranked_and_an_unknown_exclusion_excludes_nobody():
    # -1 must not be read as "the last candidate".
    assert ranks([[3.0, 2.0]], [0, 0], [-1, 1], [0], [-1]) == [UNRANKED, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_unranked_and_never_in_the_way(bad: float):
    assert ranks([[bad, 2.0, 1.0]], [0, 0], [0, 2]) == [UNRANKED, 2]


def test_a_model_of_nans_ranks_nothing():
    assert ranks([[np.nan] * 3], [0, 0, 0], [0, 1, 2]) == [UNRANKED] * 3


def test_no_targets_no_ranks():
    assert ranks([[1.0, 2.0]], [], []) == []


def by_sorting(scores: list[float], excluded: set[int], target: int, catalogue: int) -> int:
    if not 0 <= target < catalogue or target in excluded or not np.isfinite(scores[target]):
        return int(UNRANKED)
    left = [s for c, s in enumerate(scores) if c not in excluded and np.isfinite(s)]
    # The place of the last one among equals.
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
