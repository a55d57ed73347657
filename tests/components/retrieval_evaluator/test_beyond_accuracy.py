import numpy as np
import pytest

from components.retrieval_evaluator.beyond_accuracy import ReturnedLists
from components.retrieval_evaluator.ranking import DenseRanking


def measured(
    scores: list[list[float]], ks: list[int], counts: list[int], history: float = 2.0
) -> dict[str, float]:
    lists = ReturnedLists(ks, len(counts))
    lists.add(*DenseRanking(np.array(scores, np.float32)).best(lists.longest))
    return lists.metrics(np.array(counts), history)


def test_metrics_of_a_hand_worked_example():
    # First answers: 0 and 0; first two: 0, 1 and 0, 2.
    metrics = measured([[4, 3, 2, 1], [4, 1, 3, 2]], [1, 2], [5, 1, 1, 1])
    # p = (c + 1) / (8 + 4): one half for 0, a sixth for the others.
    assert metrics == pytest.approx(
        {
            "coverage@1": 1 / 4,
            "coverage@2": 3 / 4,
            # x = 0, 0, 0, 2: 3 · 2 / (4 · 2). x = 0, 1, 1, 2: (-1 + 1 + 6) / (4 · 4).
            "gini@1": 3 / 4,
            "gini@2": 6 / 16,
            "novelty@1": 1.0,
            "novelty@2": (2 * 1.0 + 2 * np.log2(6)) / 4,
            "popularity_lift@1": 5 / 2 - 1,
            "popularity_lift@2": (5 + 1 + 5 + 1) / 4 / 2 - 1,
        }
    )


def test_what_is_excluded_is_not_returned():
    metrics = measured([[-np.inf, 1.0, -np.inf]], [1, 3, 10], [1, 1, 1])
    assert [metrics[f"coverage@{k}"] for k in (1, 3, 10)] == pytest.approx([1 / 3] * 3)


def test_alike_is_a_gini_of_zero():
    assert measured(np.eye(4).tolist(), [1], [1] * 4)["gini@1"] == 0.0


def test_nothing_returned_is_no_number():
    metrics = ReturnedLists([1], 2).metrics(np.array([1, 2]), 0.0)
    assert np.isnan(metrics["gini@1"])
    assert metrics["coverage@1"] == 0.0
    assert np.isnan(metrics["popularity_lift@1"])


@pytest.mark.parametrize("kind", ["random", "ascending", "constant", "ties", "excluded"])
def test_the_best_of_a_large_catalogue_are_those_of_sorting(kind: str):
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
    lists = ReturnedLists([3, 10], 2000)
    lists.add(*DenseRanking(scores.copy()).best(lists.longest))
    best = np.argsort(-scores, axis=1, kind="stable")
    for k in (3, 10):
        returned = best[:, :k][np.take_along_axis(scores, best[:, :k], axis=1) > -np.inf]
        found = lists.metrics(np.ones(2000, int), 1.0)
        assert found[f"coverage@{k}"] == pytest.approx(len(np.unique(returned)) / 2000)
