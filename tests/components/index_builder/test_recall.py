from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from components.index_builder.exact_index import ExactIndex
from components.index_builder.recall import measure_recall

VECTORS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
# More than one batch of 128.
QUERIES = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)


class Blind(ExactIndex):
    """Sees only the first `seen` candidates; the rest of an answer is missing."""

    def __init__(self, vectors: np.ndarray, seen: int) -> None:
        super().__init__(vectors[:seen])
        self._seen = seen

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        indices, scores = super().search(queries, tf.minimum(count, self._seen))
        missing = [[0, 0], [0, count - tf.shape(indices)[1]]]
        return tf.pad(indices, missing, constant_values=-1), tf.pad(scores, missing)


def test_exact_search_has_recall_one():
    assert measure_recall(ExactIndex(VECTORS), VECTORS, QUERIES, 10) == 1.0


@pytest.mark.parametrize("k", [1, 10])
def test_equals_brute_force(k: int):
    best = np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :k]
    # Of the exact answers, those that the index can see; it sees enough to find them all.
    expected = float((best < 20).mean())
    assert 0.1 < expected < 0.9
    assert measure_recall(Blind(VECTORS, 20), VECTORS, QUERIES, k) == pytest.approx(expected)


def test_missing_neighbours_are_no_matches():
    assert measure_recall(Blind(VECTORS, 1), VECTORS, QUERIES, 50) == pytest.approx(1 / 50)


def test_k_beyond_the_catalogue_compares_all_there_are():
    assert measure_recall(ExactIndex(VECTORS), VECTORS, QUERIES, 1000) == 1.0
