"""Predict over REST, with JSON in the row or the column format.

The response has the format of the request. As in TensorFlow Serving, strings that are not valid
UTF-8 are passed through unchanged; internally, their bytes are surrogate escapes.

References:
    https://www.tensorflow.org/tfx/serving/api_rest
    util/json_tensor.cc of TensorFlow Serving.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow_serving.apis import model_pb2

from serving.errors import InvalidArgumentError
from serving.server.loaded_model import LoadedModel
from serving.server.model_service import ModelService
from serving.server.signature import DEFAULT_SIGNATURE, InputInfo, Signature
from serving.server.tensor_codec import MAX_RANK, Array, dtype_name, numpy_dtype_of

_BYTES_SUFFIX = "_bytes"
_SHOWN_CHARACTERS = 100


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a request body.

    The tokens NaN and Infinity are accepted as numbers, and a byte order mark is ignored.

    Raises:
        InvalidArgumentError: If the body is not a JSON object.
    """
    if not body:
        raise InvalidArgumentError("JSON Parse error: The document is empty")
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
    """Encode `value` as JSON; special floats become the tokens NaN, Infinity and -Infinity."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the signature name in a request, or "" if there is none.

    Raises:
        InvalidArgumentError: If the name is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidArgumentError(f"'signature_name' must be a string, but is {_shown(name)}")
    return name


async def predict_json(
    service: ModelService,
    spec: model_pb2.ModelSpec,
    document: Mapping[str, Any],
    deadline_s: float,
) -> bytes:
    """Answer a predict request.

    The request must contain all inputs of the signature. Default values of inputs are ignored, as
    in the REST API of TensorFlow Serving 2.16.

    Args:
        service: Runs the signature.
        spec: The model, version and signature.
        document: The parsed request body.
        deadline_s: Deadline as a time of `time.monotonic`.

    Returns:
        The response body.

    Raises:
        ServingError: If the request is invalid or the computation fails.
    """
    if "instances" in document and "inputs" in document:
        raise InvalidArgumentError("The body must have 'instances' or 'inputs', but has both")

    def prepare(model: LoadedModel) -> tuple[Signature, list[Array], tuple[str, ...]]:
        signature = _find_signature(model, spec.signature_name)
        if "instances" in document:
            columns = _columns_of_rows(document["instances"], signature)
        elif "inputs" in document:
            columns = _columns(document["inputs"], signature)
        else:
            raise InvalidArgumentError("Missing 'inputs' or 'instances' key")
        feeds = [_to_array(columns[info.alias], info) for info in signature.inputs]
        return signature, signature.check_dtypes(feeds), signature.outputs

    _, names, results = await service.predict(spec, prepare, deadline_s)
    outputs = dict(zip(names, results, strict=True))
    if "instances" in document:
        return write_json({"predictions": _rows(outputs)})
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    return write_json({"outputs": next(iter(values.values())) if len(values) == 1 else values})


def _find_signature(model: LoadedModel, name: str) -> Signature:
    name = name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise InvalidArgumentError(
            f'Serving signature name: "{name}" not found in signature def; the model has '
            f"{', '.join(sorted(model.signatures))}"
        )
    if not signature.inputs:
        raise InvalidArgumentError(f"Failed to get input map for signature: {name}")
    return signature


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
    if not _is_named(columns):
        if len(signature.inputs) > 1:
            names = ", ".join(sorted(info.alias for info in signature.inputs))
            raise InvalidArgumentError(
                f"'inputs' must be an object with {names}, but is {_shown(columns)}"
            )
        return {signature.inputs[0].alias: columns}
    for info in sorted(signature.inputs, key=lambda info: info.alias):
        if info.alias not in columns:
            raise InvalidArgumentError(f"Missing named input: {info.alias} in 'inputs' object.")
    result: dict[str, Any] = columns
    return result


def _to_array(value: Any, info: InputInfo) -> Array:
    """Convert nested lists to an array of the input's dtype."""
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if len(shape) >= MAX_RANK:
            raise InvalidArgumentError(
                f"Input {info.alias}: lists are nested deeper than {MAX_RANK - 1} levels"
            )
        if not first:
            break
        first = first[0]
    leaves: list[Any] = []
    _collect_leaves(value, tuple(shape), info, leaves)
    array: Array = np.empty(math.prod(shape), dtype=numpy_dtype_of(info.data_type))
    array[:] = leaves
    return array.reshape(shape)


def _collect_leaves(value: Any, shape: tuple[int, ...], info: InputInfo, leaves: list[Any]) -> None:
    if not shape and not isinstance(value, list):
        leaves.append(_leaf(value, info))
    elif shape and isinstance(value, list) and len(value) == shape[0]:
        for item in value:
            _collect_leaves(item, shape[1:], info, leaves)
    else:
        expected = f"a list of {shape[0]}" if shape else "a single value"
        raise InvalidArgumentError(
            f"Input {info.alias}: all rows must have the same shape, but where the first one has "
            f"{expected}, another one has {_shown(value)}"
        )


def _leaf(value: Any, info: InputInfo) -> Any:
    dtype = np.dtype(numpy_dtype_of(info.data_type))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype == np.object_ and isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"Input {info.alias}: a string has half a surrogate pair"
            ) from error
    if dtype == np.object_ and _is_base64(value):
        return _decode_base64(value["b64"], info)
    if dtype == np.bool_ and isinstance(value, bool):
        return value
    if dtype.kind == "f" and is_number:
        try:
            return float(value)
        except OverflowError as error:
            raise InvalidArgumentError(
                f"Input {info.alias}: {_shown(value)} is too large for a float"
            ) from error
    if dtype.kind in "iu" and is_number and isinstance(value, int):
        limits = np.iinfo(dtype)
        if limits.min <= value <= limits.max:
            return value
    raise InvalidArgumentError(
        f"Input {info.alias}: values must be of type {dtype_name(info.data_type)}, but one is "
        f"{_shown(value)}"
    )


def _decode_base64(text: str, info: InputInfo) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgumentError(
            f"Input {info.alias}: {_shown(text)} is not valid base64"
        ) from error


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
        return array.astype("U32").astype(np.float64).tolist()
    if array.dtype != np.object_:
        return array.tolist()
    texts: Array = np.empty(array.size, object)
    if name.endswith(_BYTES_SUFFIX):
        texts[:] = [{"b64": base64.b64encode(value).decode()} for value in array.ravel()]
    else:
        texts[:] = [value.decode("utf-8", "surrogateescape") for value in array.ravel()]
    return texts.reshape(array.shape).tolist()


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:_SHOWN_CHARACTERS]} is too large")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
