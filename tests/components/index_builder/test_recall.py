from __future__ import annotations

import numpy as np
import pytest

from components.index_builder import recall
from components.index_builder.exact_index import ExactIndex
from components.index_builder.recall import exact_answers, recall_of_each, search_in_batches

VECTORS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
# More than one batch of 128.
QUERIES = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)


def brute_force(k: int) -> np.ndarray:
    return np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :k]


@pytest.mark.parametrize("k", [1, 10, 50])
def test_exact_answers_are_those_of_brute_force(k: int, monkeypatch: pytest.MonkeyPatch):
    # Blocks of the catalogue as small as they may be.
    monkeypatch.setattr(recall, "_SCORES_IN_A_BLOCK", 1)
    exact = exact_answers(VECTORS, QUERIES, k)
    assert exact.k == k
    np.testing.assert_array_equal(exact.indices, brute_force(k))
    np.testing.assert_allclose(
        exact.scores, -np.sort(-(QUERIES @ VECTORS.T), axis=1)[:, :k], rtol=1e-4, atol=1e-5
    )


def test_exact_search_has_recall_one():
    exact = exact_answers(VECTORS, QUERIES, 10)
    found = np.concatenate(list(search_in_batches(ExactIndex(VECTORS), QUERIES, 10)))
    assert np.all(recall_of_each(VECTORS, exact, found) == 1.0)


@pytest.mark.parametrize("k", [1, 10])
def test_equals_brute_force(k: int):
    exact = exact_answers(VECTORS, QUERIES, k)
    # An index that sees only the first 20 candidates.
    found = np.argsort(-(QUERIES @ VECTORS[:20].T), axis=1)[:, :k]
    expected = (brute_force(k) < 20).mean(axis=1)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_allclose(recall_of_each(VECTORS, exact, found), expected, rtol=1e-6)


def test_k_beyond_the_catalogue_compares_all_there_are():
    assert exact_answers(VECTORS, QUERIES, 1000).indices.shape == (300, 50)


def test_any_of_equal_vectors_will_do():
    longest = VECTORS[[np.linalg.norm(VECTORS, axis=1).argmax()]]
    vectors = np.concatenate([longest.repeat(10, axis=0), VECTORS[1:]])
    exact = exact_answers(vectors, longest, 3)
    assert set(exact.indices[0]) <= set(range(10))
    assert recall_of_each(vectors, exact, np.array([[7, 8, 9]])) == [1.0]
    [worst] = np.argsort(vectors @ longest[0])[:1]
    assert recall_of_each(vectors, exact, np.array([[8, 9, worst]])) == pytest.approx([2 / 3])


def test_no_queries_have_no_answers():
    assert exact_answers(VECTORS, QUERIES[:0], 10).indices.shape == (0, 10)
