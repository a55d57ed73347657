"""Predict over REST, with JSON in the row or the column format.

The response has the format of the request. Unlike those of TensorFlow Serving, responses are always
valid JSON: special floats become null, and bytes that are not UTF-8 become U+FFFD. In requests,
strings that are not valid UTF-8 are read; internally, their bytes are surrogate escapes.

References:
    https://www.tensorflow.org/tfx/serving/api_rest
    util/json_tensor.cc of TensorFlow Serving.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow_serving.apis import model_pb2

from serving.errors import InvalidArgumentError, UnimplementedError
from serving.server.model_service import ModelService
from serving.server.predict import InputInfo, Signature
from serving.server.tensor_codec import MAX_RANK, Array, dtype_name

_BYTES_SUFFIX = "_bytes"
_SHOWN_CHARACTERS = 100


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a request body.

    The tokens NaN and Infinity are accepted as numbers, as null is for NaN. A byte order mark is
    ignored.
    """
    text = body.decode("utf-8-sig", "surrogateescape")
    try:
        document = json.loads(text, parse_float=_finite_float)
    except RecursionError as error:
        raise InvalidArgumentError("JSON Parse error: nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, or a number with too many digits
        raise InvalidArgumentError(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"The body must be a JSON object, but is {_shown(document)}")
    return document


def write_json(value: Any) -> bytes:
    """Encode `value`, which has no special floats, as JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


async def predict_json(
    service: ModelService, spec: model_pb2.ModelSpec, body: bytes, deadline_s: float
) -> bytes:
    """Answer a predict request with the response body.

    The request must contain all inputs of the signature. Default values of inputs are ignored, as
    in the REST API of TensorFlow Serving 2.16.
    """
    document = read_object(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidArgumentError(f"'signature_name' must be a string, but is {_shown(name)}")
    spec.signature_name = name
    if ("instances" in document) == ("inputs" in document):
        raise InvalidArgumentError("The body must have either 'instances' or 'inputs'")

    def prepare(signature: Signature) -> tuple[list[Array], tuple[str, ...]]:
        if "instances" in document:
            columns = _columns_of_rows(document["instances"], signature)
        else:
            columns = _columns(document["inputs"], signature)
        feeds = [_to_array(columns[info.alias], info) for info in signature.inputs]
        return signature.check_dtypes(feeds), signature.outputs

    _, names, results = await service.predict(spec, prepare, deadline_s)
    outputs = dict(zip(names, results, strict=True))
    if "instances" in document:
        return write_json({"predictions": _rows(outputs)})
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    return write_json({"outputs": next(iter(values.values())) if len(values) == 1 else values})


def _columns_of_rows(rows: Any, signature: Signature) -> dict[str, list[Any]]:
    names = {info.alias for info in signature.inputs}
    if not isinstance(rows, list) or not rows:
        raise InvalidArgumentError(
            f"'instances' must be a list of at least one row, but is {_shown(rows)}"
        )
    if len(names) == 1 and not _is_named(rows[0]):
        if any(_is_named(row) for row in rows):
            raise InvalidArgumentError("'instances' must be all values or all objects, but is both")
        return {next(iter(names)): rows}
    for index, row in enumerate(rows):
        if not _is_named(row) or set(row) != names:
            raise InvalidArgumentError(
                f"Each row of 'instances' must be an object with the inputs "
                f"{', '.join(sorted(names))}, but row {index} is {_shown(row)}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _columns(columns: Any, signature: Signature) -> dict[str, Any]:
    names = sorted(info.alias for info in signature.inputs)
    if not _is_named(columns):
        if len(names) == 1:
            return {names[0]: columns}
        raise InvalidArgumentError(
            f"'inputs' must be an object with {', '.join(names)}, but is {_shown(columns)}"
        )
    for name in names:
        if name not in columns:
            raise InvalidArgumentError(f"Missing named input: {name} in 'inputs' object.")
    result: dict[str, Any] = columns
    return result


def _to_array(value: Any, info: InputInfo) -> Array:
    """Convert nested lists to an array of the input's dtype."""
    if info.dtype is None:
        raise UnimplementedError(f"Tensors of type {dtype_name(info.data_type)} are not supported")
    nested = np.array(value, dtype=np.object_)
    array: Array = np.empty(nested.size, info.dtype)
    array[:] = [_leaf(leaf, info, info.dtype) for leaf in nested.ravel()]
    return array.reshape(nested.shape)


def _leaf(value: Any, info: InputInfo, dtype: np.dtype[Any]) -> Any:
    kind = dtype.kind
    try:
        if kind == "O" and isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if kind == "O" and _is_base64(value):
            text = value["b64"]
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        if kind == "b" and isinstance(value, bool):
            return value
        if kind == "f" and value is None:
            return math.nan
        if kind == "f" and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind in "iu" and isinstance(value, int) and not isinstance(value, bool):
            limits = np.iinfo(dtype)
            if limits.min <= value <= limits.max:
                return value
    except (ValueError, OverflowError):
        pass  # invalid base64, half a surrogate pair, or an integer too large for a float
    needed = f"a valid {dtype_name(info.data_type)}"
    if isinstance(value, list):
        needed = f"of the same shape in all rows, with at most {MAX_RANK} dimensions"
    raise InvalidArgumentError(
        f"Input {info.alias}: each value must be {needed}, but one is {_shown(value)}"
    )


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _rows(outputs: Mapping[str, Array]) -> list[Any]:
    sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        found = ", ".join(f"{name}: {size or 'none'}" for name, size in sizes.items())
        raise InvalidArgumentError(
            "In the row format all outputs must have the same batch size, but they have "
            f"{found}; use the column format ('inputs')"
        )
    columns = {name: _to_json(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        rows: list[Any] = next(iter(columns.values()))
        return rows
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _to_json(name: str, array: Array) -> Any:
    """Convert an array to nested lists of JSON values."""
    if array.dtype == np.float32:
        # Via the shortest decimal form, so that 0.1 does not become 0.10000000149011612.
        array = array.astype("U32").astype(np.float64)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        values = array.astype(object)
        values[~np.isfinite(array)] = None
        return values.tolist()
    if array.dtype != np.object_:
        return array.tolist()
    texts: Array = np.empty(array.size, object)
    if name.endswith(_BYTES_SUFFIX):
        texts[:] = [{"b64": base64.b64encode(value).decode()} for value in array.ravel()]
    else:
        texts[:] = [value.decode("utf-8", "replace") for value in array.ravel()]
    return texts.reshape(array.shape).tolist()


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:_SHOWN_CHARACTERS]} is too large")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
