"""REST classify and regress: the bodies that are refused before a model is asked.

References:
    `FillClassifyRegressRequestFromJson` in tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

from typing import Any

from tensorflow.core.framework import types_pb2

from serving.errors import InvalidArgumentError
from serving.server.json_reader import format_error, read_object, type_name
from serving.server.json_tensor import is_base64_object, to_array

_EXAMPLES = "examples"
_CONTEXT = "context"


def signature_name_of(body: bytes) -> str:
    """Check a body and return the signature that it names; "" if it names none.

    Raises:
        InvalidArgumentError: With TensorFlow Serving's text.
    """
    document = read_object(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    if _CONTEXT in document:
        _check_example(document[_CONTEXT])
    if _EXAMPLES not in document:
        raise format_error(
            document, f"When method is classify, key '{_EXAMPLES}' is expected and was not found"
        )
    examples = document[_EXAMPLES]
    if not isinstance(examples, list):
        raise format_error(document, f"Expecting '{_EXAMPLES}' value to be an list/array")
    if not examples:
        raise format_error(document, f"'{_EXAMPLES}' value is an empty array")
    for example in examples:
        _check_example(example)
    return name


def _check_example(example: Any) -> None:
    if not isinstance(example, dict):
        raise InvalidArgumentError(f"Example must be JSON object but got JSON {type_name(example)}")
    for name, content in example.items():
        kinds: set[str] = set()
        for value in content if isinstance(content, list) else [content]:
            kind = _kind(name, value)
            if kinds and kind not in kinds:
                raise InvalidArgumentError(
                    f"Unexpected element type in feature: {name} expecting type: {kinds.pop()}"
                )
            kinds.add(kind)


def _kind(name: str, value: Any) -> str:
    if isinstance(value, bool | int):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InvalidArgumentError(
                f"Feature: {name} has uint64_t element. Only int64_t is supported."
            )
        return "int64"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "bytes"
    if isinstance(value, dict) and is_base64_object(value):
        to_array(value, types_pb2.DT_STRING)
        return "bytes"
    raise InvalidArgumentError(
        f"Feature: {name} has element with unexpected JSON type: {type_name(value)}"
    )
