from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from models.features.spec import FeatureSpec
from models.input.raw_inputs import (
    candidate_inputs,
    default_value,
    query_inputs,
    same_batch,
    to_sparse,
)


def described(tensors: dict[str, tf.TensorSpec]) -> dict[str, tuple[str, int]]:
    return {name: (tensor.dtype.name, tensor.shape.rank) for name, tensor in tensors.items()}


def test_inputs_are_what_a_client_knows(raw_spec: FeatureSpec):
    assert described(query_inputs(raw_spec)) == {
        "user": ("string", 1),
        "age": ("float32", 1),
        "visits": ("float32", 1),
        "country": ("string", 1),
        "device": ("string", 1),
        "history": ("string", 2),
        "history_types": ("string", 2),
    }
    assert described(candidate_inputs(raw_spec)) == {
        "item": ("string", 1),
        "title": ("string", 1),
        "genres": ("string", 2),
        "year": ("float32", 1),
        "section": ("string", 1),
        "cover": ("float32", 2),
    }


def test_missing_values_leave_no_trace_in_sparse_tensors():
    strings = to_sparse(tf.constant([["", "a"], ["b", ""], ["", ""]]))
    assert strings.indices.numpy().tolist() == [[0, 1], [1, 0]]
    assert strings.values.numpy().tolist() == [b"a", b"b"]
    assert strings.dense_shape.numpy().tolist() == [3, 2]
    numbers = to_sparse(tf.constant([1.0, math.nan, math.inf, 0.0]))
    assert numbers.indices.numpy().tolist() == [[0, 0], [3, 0]]
    assert numbers.dense_shape.numpy().tolist() == [4, 1]


@pytest.mark.parametrize("rows", [0, 3])
def test_one_row_is_repeated_for_the_batch(rows: int):
    given = {"a": [rows], "b": [1], "c": [1, 5]}
    repeated = same_batch({name: tf.zeros(shape) for name, shape in given.items()})
    shapes = {name: values.shape.as_list() for name, values in repeated.items()}
    assert shapes == {"a": [rows], "b": [rows], "c": [rows, 5]}


def test_values_are_repeated_and_not_invented():
    rows = same_batch({"a": tf.constant(["x", "y"]), "b": tf.constant([["p", "q"]])})
    assert rows["b"].numpy().tolist() == [[b"p", b"q"], [b"p", b"q"]]


def test_defaults_say_nothing(raw_spec: FeatureSpec):
    tensors = {**query_inputs(raw_spec), **candidate_inputs(raw_spec)}
    for tensor in tensors.values():
        value = default_value(tensor)
        assert tensor.is_compatible_with(value)
        assert value.shape[0] == 1
        assert to_sparse(value).values.shape == (0,)
    assert np.isnan(default_value(tensors["age"]).numpy()).all()
