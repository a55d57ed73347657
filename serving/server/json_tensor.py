"""One JSON value, a scalar or nested lists, to one tensor.

References:
    `GetDenseTensorShape` and `FillTensorProto` in tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from serving.errors import InvalidArgumentError, UnimplementedError
from serving.server.json_reader import format_error, type_name
from serving.server.json_writer import value_text
from serving.server.tensor_codec import MAX_RANK, Array, dtype_name, numpy_dtype_of

_INT_RANGES = {
    # TensorFlow Serving reads the narrow types as 32-bit numbers, too.
    types_pb2.DT_INT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT16: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT32: (-(2**31), 2**31 - 1),
    types_pb2.DT_UINT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}


def dense_shape(value: Any) -> tuple[int, ...]:
    """Return the shape that the first elements suggest; `flatten` checks the rest.

    Raises:
        InvalidArgumentError: If lists are nested deeper than a tensor can be.
    """
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) >= MAX_RANK:  # A row still gets its batch dimension.
            raise InvalidArgumentError(f"Lists are nested deeper than {MAX_RANK - 1} levels")
        if not value:
            break
        value = value[0]
    return tuple(shape)


def to_array(value: Any, data_type: int) -> Array:
    """Return the tensor that a JSON value stands for.

    Raises:
        InvalidArgumentError: If the lists are ragged or a value has a wrong type.
    """
    shape = dense_shape(value)
    return from_flat(flatten(value, shape, data_type), shape, data_type)


def from_flat(flat: list[Any], shape: tuple[int, ...], data_type: int) -> Array:
    """Return an array of `shape` with the values of `flatten`."""
    array: Array = np.empty(math.prod(shape), dtype=numpy_dtype_of(data_type))
    if data_type in _INT_RANGES:
        array[:] = np.array(flat, dtype=object).astype(array.dtype)  # Wraps, as a C++ cast does.
    else:
        array[:] = flat
    return array.reshape(shape)


def flatten(value: Any, shape: tuple[int, ...], data_type: int) -> list[Any]:
    """Return the leaves of nested lists, each of the type that `data_type` needs.

    Raises:
        InvalidArgumentError: If the lists do not have `shape` or a leaf has a wrong type.
    """
    flat: list[Any] = []
    _fill(value, 0, shape, data_type, flat)
    return flat


def is_base64_object(value: Any) -> bool:
    """Tell whether a value is `{"b64": "..."}`, the form of binary strings."""
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _fill(value: Any, level: int, shape: tuple[int, ...], data_type: int, flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise InvalidArgumentError(
                f"JSON Value: {value_text(value)} found at incorrect level: {level + 1} "
                f"in the JSON DOM. Expected at level: {rank}"
            )
        flat.append(_leaf(value, data_type))
        return
    if level >= rank:
        raise InvalidArgumentError(
            f"Encountered list at unexpected level: {level} expected < {rank}"
        )
    if len(value) != shape[level]:
        raise InvalidArgumentError(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for item in value:
        _fill(item, level + 1, shape, data_type, flat)


def _leaf(value: Any, data_type: int) -> Any:
    if data_type == types_pb2.DT_STRING:
        if isinstance(value, str):
            return _encode(value)
        if isinstance(value, dict):
            return _decode_base64(value)
    elif data_type in (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif data_type in _INT_RANGES:
        low, high = _INT_RANGES[data_type]
        if type(value) is int and low <= value <= high:
            return value
    elif data_type == types_pb2.DT_BOOL:
        if isinstance(value, bool):
            return value
    else:
        raise UnimplementedError(
            f"Conversion of JSON Value: {value_text(value)} to type: {dtype_name(data_type)}"
        )
    raise InvalidArgumentError(
        f"JSON Value: {value_text(value)} Type: {type_name(value)} "
        f"is not of expected type: {dtype_name(data_type)}"
    )


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            "JSON Parse error: The surrogate pair in string is invalid."
        ) from error


def _decode_base64(value: dict[str, Any]) -> bytes:
    if not is_base64_object(value):
        raise format_error(value, "not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgumentError("Unable to base64 decode") from error
