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


def sparse(
    rows: list[list[float]], dtype: tf.DType = tf.int64, holes: tuple[tuple[int, int], ...] = ()
) -> tf.SparseTensor:
    """Rows of values, each moved one column to the right for every hole before it."""
    width = max((len(row) for row in rows), default=0) + len(holes)
    positions, values = [], []
    for number, row in enumerate(rows):
        free = [c for c in range(width) if (number, c) not in holes]
        positions += [(number, free[n]) for n in range(len(row))]
        values += row
    return tf.SparseTensor(
        np.array(positions, np.int64).reshape(-1, 2),
        tf.constant(values, dtype),
        [len(rows), width],
    )


def test_short_rows_are_padded_at_the_end():
    padded = pad_indices(sparse([[3], [1, 2, 0], []]))
    assert padded.dtype == tf.int32
    assert padded.numpy().tolist() == [[3, -1, -1], [1, 2, 0], [-1, -1, -1]]


def test_newest_keeps_each_rows_own_last_events():
    # Cutting after padding would keep the last columns, where the shorter rows have nothing.
    padded = pad_indices(sparse([[1], [5, 6, 7, 8, 9], [2, 3]]), newest=2)
    assert padded.numpy().tolist() == [[1, -1], [8, 9], [2, 3]]


def test_holes_are_closed():
    holes = ((0, 0), (1, 1))
    padded = pad_indices(sparse([[4, 5], [6, 7]], holes=holes))
    assert padded.numpy().tolist() == [[4, 5], [6, 7]]
    padded = pad_indices(sparse([[4, 5], [6, 7]], holes=holes), newest=1)
    assert padded.numpy().tolist() == [[5], [7]]


@pytest.mark.parametrize("rows", [0, 3])
def test_a_batch_without_values_has_no_columns(rows: int):
    assert pad_indices(sparse([[]] * rows)).shape == (rows, 0)
    assert pad_indices(sparse([[]] * rows), newest=5).shape == (rows, 0)


def test_numbers_have_one_column_and_nan_where_missing():
    dense = dense_features({"age": sparse([[0.5], []], tf.float32)}, {"age": NUMBER})["age"]
    assert dense.shape == (2, 1)
    assert dense[0, 0] == 0.5
    assert math.isnan(dense[1, 0])


def test_numbers_have_one_column_even_where_nobody_has_a_value():
    dense = dense_features({"age": sparse([[], []], tf.float32)}, {"age": NUMBER})["age"]
    assert dense.shape == (2, 1)
    assert np.all(np.isnan(dense))


def test_kinds_become_indices_or_numbers():
    kinds = {"age": NUMBER, "year": BUCKET, "country": INDEX, "title": FeatureConfig(kind="text")}
    assert [name for name, feature in kinds.items() if feature.is_index] == [
        "year",
        "country",
        "title",
    ]
    spec = parsing_spec(["item"], kinds)
    assert {name: feature.dtype for name, feature in spec.items()} == {
        "item": tf.int64,
        "age": tf.float32,
        "year": tf.int64,
        "country": tf.int64,
        "title": tf.int64,
    }
