"""TensorFlow's own conversions are the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.server.tensor_codec import TensorParsingError, decode, wire_bytes

ARRAYS = [
    np.float32([[1.5, -0.0, np.nan], [np.inf, 1e-45, 3.4e38]]),
    np.float64([0.1]),
    np.int32([-1, 2**31 - 1]),
    np.int64([[-(2**63)], [2**63 - 1]]),
    np.uint8([0, 255]),
    np.int8([-128]),
    np.uint64([2**64 - 1]),
    np.array([True, False]),
    np.array([["", "ü"], ["a\0b", "漢"]], dtype=object),
    np.zeros((0, 3), np.float32),
    np.zeros((2, 0), object),
    np.array(7.0, np.float32),
    np.arange(1000, dtype=np.float32),
]


def to_bytes(array: Any) -> Any:
    encode_item = np.vectorize(lambda text: text.encode(), otypes=[object])
    return encode_item(array) if array.dtype == object and array.size else array


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_round_trip_agrees_with_tensorflow(array: Any) -> None:
    array = to_bytes(array)
    dtype = tf.string if array.dtype == object else None
    decoded = decode(tf.make_tensor_proto(array, dtype, shape=array.shape))
    np.testing.assert_array_equal(decoded, array)
    assert decoded.dtype == array.dtype

    proto = tensor_pb2.TensorProto.FromString(wire_bytes(array))
    assert not proto.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)


def proto(dtype: int, shape: list[int], **values: Any) -> tensor_pb2.TensorProto:
    made = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (proto(types_pb2.DT_FLOAT, [3], float_val=[1, 2]), [1, 2, 2]),
        (proto(types_pb2.DT_FLOAT, [1], float_val=[1, 2]), [1]),
        (proto(types_pb2.DT_FLOAT, [2]), [0, 0]),
        (proto(types_pb2.DT_STRING, [2]), [b"", b""]),
        (proto(types_pb2.DT_STRING, [2], string_val=[b"a"]), [b"a", b"a"]),
    ],
)
def test_fewer_or_more_values_than_the_shape_are_filled_up_or_cut(
    given: tensor_pb2.TensorProto, expected: list[Any]
) -> None:
    assert decode(given).tolist() == expected


@pytest.mark.parametrize(
    "given",
    [
        proto(types_pb2.DT_INVALID, []),
        proto(types_pb2.DT_FLOAT, [-1]),
        proto(types_pb2.DT_FLOAT, [1] * 33, float_val=[1]),
        proto(types_pb2.DT_FLOAT, [2**62, 2**62], float_val=[1]),
        proto(types_pb2.DT_FLOAT, [2], tensor_content=b"1234"),
        proto(types_pb2.DT_STRING, [1], tensor_content=b"a"),
        proto(types_pb2.DT_VARIANT, [1]),
    ],
)
def test_contradictions_are_refused(given: tensor_pb2.TensorProto) -> None:
    with pytest.raises(TensorParsingError):
        decode(given)


@pytest.mark.parametrize("shape", [[2**28], [2**20, 2**10], [1, 2**50], [2**40, 0], [0, 2**40]])
@pytest.mark.parametrize("dtype", [types_pb2.DT_FLOAT, types_pb2.DT_STRING])
def test_a_shape_that_claims_more_than_was_sent_is_refused(dtype: int, shape: list[int]) -> None:
    few = {"string_val": [b"a"]} if dtype == types_pb2.DT_STRING else {"float_val": [1.0]}
    with pytest.raises(TensorParsingError, match="claims more than was sent"):
        decode(proto(dtype, shape, **few))
    with pytest.raises(TensorParsingError, match="claims more than was sent"):
        decode(proto(dtype, shape))


def test_whatever_was_sent_may_be_claimed() -> None:
    assert decode(proto(types_pb2.DT_FLOAT, [4096], float_val=[1])).sum() == 4096
    sent = proto(types_pb2.DT_STRING, [10_000], string_val=[b""] * 9_999)
    assert decode(sent).shape == (10_000,)
    content = proto(types_pb2.DT_FLOAT, [100_000], tensor_content=bytes(400_000))
    assert decode(content).shape == (100_000,)
