from __future__ import annotations

import numpy as np
import pytest

from components.index_builder import partitioned_index
from components.index_builder.partitioned_index import cut_into_leaves, leaf_means


def clusters(num_clusters: int, size: int) -> np.ndarray:
    """Return vectors in clusters that are far apart, cluster after cluster."""
    rng = np.random.default_rng(1)
    centres = 100 * rng.normal(size=(num_clusters, 3))
    return (np.repeat(centres, size, axis=0) + rng.normal(size=(num_clusters * size, 3))).astype(
        np.float32
    )


def test_k_means_finds_the_clusters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partitioned_index, "_SCORES_PER_BLOCK", 100)  # several blocks
    vectors = clusters(5, 40)
    found = cut_into_leaves(vectors, 20, seed=0)
    # With more leaves than clusters no leaf mixes two of them.
    for leaf in np.unique(found):
        assert len({index // 40 for index in np.flatnonzero(found == leaf)}) == 1


def test_leaves_are_numbered_without_gaps_and_the_same_for_a_seed():
    vectors = np.random.default_rng(2).normal(size=(500, 4)).astype(np.float32)
    found = cut_into_leaves(vectors, 30, seed=3)
    assert set(found) == set(range(found.max() + 1))
    assert 20 <= found.max() < 30
    np.testing.assert_array_equal(found, cut_into_leaves(vectors, 30, seed=3))
    assert not np.array_equal(found, cut_into_leaves(vectors, 30, seed=4))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_more_leaves_than_vectors(count: int):
    found = cut_into_leaves(clusters(count, 1), 100, seed=0)
    assert len(found) == count


def test_equal_vectors_share_a_leaf():
    assert set(cut_into_leaves(np.ones((50, 3), np.float32), 10, seed=0)) == {0}


def test_means_and_sizes():
    vectors = np.array([[1, 2], [3, 4], [10, 10]], np.float32)
    means, sizes = leaf_means(vectors, np.array([2, 2, 0], np.int32), 3)
    np.testing.assert_array_equal(means, [[10, 10], [0, 0], [2, 3]])
    np.testing.assert_array_equal(sizes, [1, 0, 2])
