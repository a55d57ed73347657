"""REST predict: JSON in the row or the columnar form, and the answer in the same form.

References:
    `FillPredictRequestFromJson` and `MakeJsonFromTensors` in
    tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from tensorflow_serving.apis import model_pb2

from serving.errors import InvalidArgumentError
from serving.server.batching import Call
from serving.server.json_reader import format_error, read_object
from serving.server.json_tensor import (
    dense_shape,
    flatten,
    from_flat,
    is_base64_object,
    to_array,
)
from serving.server.json_writer import encode_text, tensor_texts, value_text
from serving.server.loaded_model import LoadedModel
from serving.server.model_service import ModelService
from serving.server.signature import DEFAULT_SIGNATURE, Signature
from serving.server.tensor_codec import Array

_BYTES_SUFFIX = "_bytes"


def predict_json(
    service: ModelService, spec: model_pb2.ModelSpec, body: bytes, timeout_s: float
) -> bytes:
    """Answer a REST predict request.

    Every input must be given: the defaults of a signature count over gRPC only, as in TensorFlow
    Serving r2.16.

    Raises:
        ServingError: With TensorFlow Serving's code and text.
    """
    document = read_object(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    deadline_s = time.monotonic() + timeout_s
    with service.manager.use(spec) as model:
        signature = _signature(model, name)
        if "instances" in document and "inputs" in document:
            raise format_error(
                document,
                "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to "
                "exist ",
            )
        if "instances" in document:
            arrays, as_text = _from_rows(document, signature), _rows_text
        elif "inputs" in document:
            arrays, as_text = _from_columns(document["inputs"], signature), _columns_text
        else:
            raise InvalidArgumentError("Missing 'inputs' or 'instances' key")
        outputs = signature.outputs
        call = Call(signature, signature.order_feeds(arrays), outputs, deadline_s)
        started_s = time.monotonic()
        results = service.batcher.run(call, deadline_s - started_s)
        elapsed_us = (time.monotonic() - started_s) * 1e6
        service.metrics.runtime_latency.add(elapsed_us, spec.name, "Predict", "TF1")
    return encode_text(as_text(dict(zip(outputs, results, strict=True))))


def _signature(model: LoadedModel, name: str) -> Signature:
    signature = model.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise InvalidArgumentError(
            f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def'
        )
    if not signature.inputs:
        raise InvalidArgumentError(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    return signature


def _from_rows(document: dict[str, Any], signature: Signature) -> dict[str, Array]:
    rows = document["instances"]
    if not isinstance(rows, list):
        raise format_error(document, "Expecting 'instances' to be an list/array")
    if not rows:
        raise format_error(document, "No values in 'instances' array")
    if not isinstance(rows[0], dict) and len(signature.inputs) > 1:
        raise InvalidArgumentError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    columns = _RowColumns({info.alias: info.data_type for info in signature.inputs})
    rows_are_objects = _is_named(rows[0])
    for index, row in enumerate(rows):
        if rows_are_objects:
            _add_object(columns, row, index)
        else:
            _add_plain(columns, row, index)
    return columns.arrays(len(rows))


class _RowColumns:
    """Collects the values of each input, row by row; all rows must have one shape."""

    def __init__(self, data_types: Mapping[str, int]) -> None:
        self.data_types = data_types
        self._flat: dict[str, list[Any]] = {name: [] for name in data_types}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def add(self, name: str, value: Any) -> None:
        if name not in self.data_types:
            raise InvalidArgumentError(f"JSON object: does not have named input: {name}")
        shape = dense_shape(value)
        flat = flatten(value, shape, self.data_types[name])
        expected = self._shapes.setdefault(name, shape)
        if shape != expected:
            expected_size = math.prod(expected)
            if len(flat) != expected_size:
                raise InvalidArgumentError(
                    f"Expecting tensor size: {expected_size} but got: {len(flat)}"
                )
            raise InvalidArgumentError(
                f"Expecting shape {_shape_text(expected)} but got: {_shape_text(shape)}"
            )
        self._flat[name] += flat

    def arrays(self, rows: int) -> dict[str, Array]:
        return {
            name: from_flat(self._flat[name], (rows, *self._shapes[name]), data_type)
            for name, data_type in self.data_types.items()
        }


def _add_object(columns: _RowColumns, row: Any, index: int) -> None:
    if not _is_named(row):
        raise InvalidArgumentError(f"Expecting object but got list at item {index} of input list")
    for name, value in row.items():
        try:
            columns.add(name, value)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"Failed to process element: {index} key: {name} of 'instances' list. "
                f"Error: {error.code_name()}: {error.message}"
            ) from error
    if set(row) != set(columns.data_types):
        raise InvalidArgumentError(
            f"Failed to process element: {index} of 'instances' list. JSON object: "
            f"{value_text(row)} keys must be equal to: {','.join(sorted(columns.data_types))}"
        )


def _add_plain(columns: _RowColumns, row: Any, index: int) -> None:
    if _is_named(row):
        raise InvalidArgumentError(
            f"Expecting value/list but got object at item {index} of input list"
        )
    (name,) = columns.data_types
    try:
        columns.add(name, row)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"Failed to process element: {index} of 'instances' list. "
            f"Error: {error.code_name()}: {error.message}"
        ) from error


def _from_columns(columns: Any, signature: Signature) -> dict[str, Array]:
    if not _is_named(columns):
        if len(signature.inputs) > 1:
            raise InvalidArgumentError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        (info,) = signature.inputs
        return {info.alias: to_array(columns, info.data_type)}
    arrays = {}
    for info in sorted(signature.inputs, key=lambda info: info.alias):
        if info.alias not in columns:
            raise InvalidArgumentError(f"Missing named input: {info.alias} in 'inputs' object.")
        arrays[info.alias] = to_array(columns[info.alias], info.data_type)
    return arrays


def _rows_text(results: Mapping[str, Array]) -> str:
    batch_size = -1
    for name, array in results.items():
        if array.ndim == 0:
            raise InvalidArgumentError(f"Tensor name: {name} has no shape information ")
        if batch_size not in (-1, array.shape[0]):
            raise InvalidArgumentError(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} "
                f"expecting: {batch_size}"
            )
        batch_size = array.shape[0]
    if batch_size == 0:
        return '{\n    "predictions": []\n}'
    several = len(results) > 1
    columns = {
        name: tensor_texts(
            array,
            3 if several else 2,
            strings_as_base64=name.endswith(_BYTES_SUFFIX),
            on_one_line=True,
            split=True,
        )
        for name, array in results.items()
    }
    if not several:
        # The odd break before the bracket is TensorFlow Serving's own.
        (texts,) = columns.values()
        return f'{{\n    "predictions": [{", ".join(texts)}\n    ]\n}}'
    rows = []
    for index in range(batch_size):
        members = ",\n".join(
            f'            "{name}": {texts[index]}' for name, texts in columns.items()
        )
        rows.append(f"        {{\n{members}\n        }}")
    return '{\n    "predictions": [\n' + ",\n".join(rows) + "\n    ]\n}"


def _columns_text(results: Mapping[str, Array]) -> str:
    several = len(results) > 1
    columns = {
        name: tensor_texts(
            array,
            2 if several else 1,
            strings_as_base64=name.endswith(_BYTES_SUFFIX),
            on_one_line=False,
            split=False,
        )[0]
        for name, array in results.items()
    }
    if not several:
        (text,) = columns.values()
        return f'{{\n    "outputs": {text}\n}}'
    members = ",\n".join(f'        "{name}": {text}' for name, text in columns.items())
    return f'{{\n    "outputs": {{\n{members}\n    }}\n}}'


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64_object(value)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
