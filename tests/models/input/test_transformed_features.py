from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from models.features.spec import FeatureConfig
from models.input.transformed_features import dense_features, pad_indices, parsing_spec

INDEX = FeatureConfig(kind="categorical")
BUCKET = FeatureConfig(kind="numeric", buckets=3)
NUMBER = FeatureConfig(kind="numeric")


def sparse(rows: list[list[float]], dtype: tf.DType = tf.int64) -> tf.SparseTensor:
    return tf.ragged.constant(rows, dtype, ragged_rank=1).to_sparse()


HOLES = tf.sparse.from_dense(tf.constant([[0, 4, 5], [6, 0, 7]], tf.int64))


@pytest.mark.parametrize(
    ("values", "newest", "expected"),
    [
        (sparse([[3], [1, 2, 0], []]), None, [[3, -1, -1], [1, 2, 0], [-1, -1, -1]]),
        # Cutting after padding would keep the last columns, where shorter rows have nothing.
        (sparse([[1], [5, 6, 7, 8, 9], [2, 3]]), 2, [[1, -1], [8, 9], [2, 3]]),
        (HOLES, None, [[4, 5], [6, 7]]),
        (HOLES, 1, [[5], [7]]),
    ],
    ids=["padded at the end", "newest of each row", "holes are closed", "newest with holes"],
)
def test_rows_become_dense(values: tf.SparseTensor, newest: int | None, expected: list[list[int]]):
    padded = pad_indices(values) if newest is None else pad_indices(values, newest=newest)
    assert padded.dtype == tf.int32
    assert padded.numpy().tolist() == expected


@pytest.mark.parametrize("rows", [0, 3])
def test_a_batch_without_values_has_no_columns(rows: int):
    assert pad_indices(sparse([[]] * rows)).shape == (rows, 0)
    assert pad_indices(sparse([[]] * rows), newest=5).shape == (rows, 0)


@pytest.mark.parametrize("rows", [[[0.5], []], [[], []]])
def test_numbers_have_one_column_and_nan_where_missing(rows: list[list[float]]):
    dense = dense_features({"age": sparse(rows, tf.float32)}, {"age": NUMBER})["age"]
    expected = [[row[0] if row else math.nan] for row in rows]
    np.testing.assert_array_equal(dense, expected)


def test_kinds_become_indices_or_numbers():
    kinds = {"age": NUMBER, "year": BUCKET, "country": INDEX, "title": FeatureConfig(kind="text")}
    indices = [name for name, feature in kinds.items() if feature.is_index]
    assert indices == ["year", "country", "title"]
    dtypes = {name: each.dtype for name, each in parsing_spec(["item"], kinds).items()}
    assert dtypes == {**dict.fromkeys(["item", *indices], tf.int64), "age": tf.float32}
