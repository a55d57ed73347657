"""Defects of ScaNN that the index must hide from its callers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from components.index_builder.scann_index import ScannIndex, ScannSettings
from components.index_builder.search_index import ExactIndex

NUM, DIMENSION = 400, 8


@pytest.fixture(scope="module")
def vectors() -> npt.NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(NUM, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> tf.Tensor:
    return tf.constant(np.random.default_rng(4).normal(size=(5, DIMENSION)), tf.float32)


@pytest.mark.parametrize(
    ("leaves_to_search", "reorder", "count"),
    [
        (8, 20, NUM),
        # One of eight leaves cannot contain so many: ScaNN pads with row 0 and NaN.
        (1, NUM, NUM - 1),
    ],
)
def test_a_search_that_finds_too_few_compares_all(
    vectors: npt.NDArray[np.float32],
    queries: tf.Tensor,
    leaves_to_search: int,
    reorder: int,
    count: int,
) -> None:
    index = ScannIndex(vectors, 10, ScannSettings(8, leaves_to_search, reorder))
    expected = ExactIndex(vectors).search(queries, tf.constant(count))
    actual = index.search(queries, tf.constant(count))
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-4, atol=1e-5)


def test_the_saved_index_is_the_tuned_one(vectors: npt.NDArray[np.float32], queries: tf.Tensor):
    settings = ScannSettings(leaves=8, leaves_to_search=3, reorder=20)
    index = ScannIndex(vectors, 10, settings)
    count = tf.constant(10)
    tuned = index.attempt(queries, count)
    index.end_tuning()
    index.end_tuning()  # a second call is harmless
    search = tf.function(lambda rows: index.search(rows, count)).get_concrete_function(
        tf.TensorSpec([None, DIMENSION])
    )
    np.testing.assert_array_equal(search(queries)[0], tuned[0])
    np.testing.assert_allclose(search(queries)[1], tuned[1], rtol=1e-6)
    with pytest.raises(RuntimeError, match="end_tuning"):
        index.attempt(queries, count)
