import numpy as np
import pytest

from components.retrieval_evaluator.baselines.linear import EASE, TruncatedSVD
from components.retrieval_evaluator.baselines.popularity import popularity_scores
from tests.components.retrieval_evaluator.baselines.timelines import (
    histories_of,
    indices,
    ranking,
    trained_on,
)

TIMELINES = ["abc", "abb", "bcd", "ad", "cde", "e", "abde"]
HISTORIES = ["ab", "e?", "dd"]


def rows(words: list[str], size: int = 6) -> np.ndarray:
    """Return which candidates are in each timeline or history."""
    found = np.zeros((len(words), size))
    for row, word in zip(found, words, strict=True):
        row[[index for index in indices(word) if index >= 0]] = 1.0
    return found


@pytest.mark.parametrize("dimension", [1, 2, 3, 8])
def test_the_svd_projects_histories_as_a_full_decomposition_does(dimension: int) -> None:
    training = trained_on(TIMELINES, 6)
    baseline = TruncatedSVD(training, popularity_scores(training.counts), dimension)
    events = rows(TIMELINES)
    counts = events.sum(axis=0)
    scale = np.sqrt(np.maximum(counts, 1))
    _, _, vectors = np.linalg.svd(events / np.sqrt(events.sum(axis=1))[:, None] / scale)
    projector = vectors[:dimension].T @ vectors[:dimension]
    expected = rows(HISTORIES) / scale @ projector * np.sqrt(counts)
    np.testing.assert_allclose(
        baseline.scores(histories_of(HISTORIES)).dense(), expected, atol=1e-4
    )


def test_one_singular_vector_ranks_by_popularity():
    training = trained_on(["ab", "bc", "bd", "cd", "db"], 4)
    popularity = popularity_scores(training.counts)
    scores = TruncatedSVD(training, popularity, 1).scores(histories_of(["a", "d"])).dense()
    assert ranking(scores) == ["bdca", "bdca"]


def test_ease_solves_the_ridge_regression_without_a_diagonal():
    training = trained_on(TIMELINES, 6)
    baseline = EASE(training, popularity_scores(training.counts), regularization=2.0)
    events = rows(TIMELINES)
    weights = np.zeros((6, 6))
    for target in range(6):
        others = np.delete(np.arange(6), target)
        x = events[:, others]
        solution = np.linalg.solve(x.T @ x + 2.0 * np.eye(5), x.T @ events[:, target])
        weights[others, target] = solution
    found = baseline.scores(histories_of(HISTORIES))
    np.testing.assert_allclose(found.dense(), rows(HISTORIES) @ weights, atol=1e-4)
    np.testing.assert_array_equal(found.dense(1, 2), found.dense()[1:2])
