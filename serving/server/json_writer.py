"""Writes JSON as RapidJSON's PrettyWriter does, which TensorFlow Serving answers with.

Text is kept as `str` with surrogate escapes: bytes that are no UTF-8 come in and go out unchanged,
as they do in RapidJSON.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from serving.server.tensor_codec import Array

_INDENT = "    "
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_TO_ESCAPE = re.compile(r'["\\\x00-\x1f]')
# As RapidJSON; Python's own escapes differ by lower-case digits.
_ESCAPES = {chr(code): f"\\u{code:04X}" for code in range(0x20)} | {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


def write_json(value: Any) -> bytes:
    """Return `value` as JSON, indented by four blanks."""
    return encode_text(value_text(value))


def value_text(value: Any) -> str:
    """Return `value` as the text that error messages quote."""
    return json.dumps(value, indent=4, ensure_ascii=False)


def encode_text(text: str) -> bytes:
    """Return the bytes of a text that may carry surrogate escapes."""
    return text.encode("utf-8", "surrogateescape")


def tensor_texts(
    array: Array, level: int, *, strings_as_base64: bool, on_one_line: bool, split: bool
) -> list[str]:
    """Return an array as JSON.

    Args:
        array: Numbers, booleans, or `bytes` in an object array.
        level: How many objects and lists are open around the text.
        strings_as_base64: Write strings as `{"b64": ...}`.
        on_one_line: Write lists as `[1, 2]` instead of one element a line.
        split: Return one text for each row of the first dimension instead of one in total.
    """
    rank_inside = array.ndim - 1 if split else array.ndim
    leaves = iter(_leaf_texts(array, level + rank_inside, strings_as_base64))
    if split:
        return [_nested(leaves, array.shape[1:], level, on_one_line) for _ in range(array.shape[0])]
    return [_nested(leaves, array.shape, level, on_one_line)]


def _nested(leaves: Iterator[str], shape: tuple[int, ...], level: int, on_one_line: bool) -> str:
    if not shape:
        return next(leaves)
    items = [_nested(leaves, shape[1:], level + 1, on_one_line) for _ in range(shape[0])]
    if not items:
        return "[]"
    if on_one_line:
        return f"[{', '.join(items)}]"
    inner, outer = "\n" + _INDENT * (level + 1), "\n" + _INDENT * level
    return f"[{inner}{(',' + inner).join(items)}{outer}]"


def _leaf_texts(array: Array, level: int, strings_as_base64: bool) -> list[str]:
    if array.dtype == np.object_:
        if strings_as_base64:
            inner, outer = "\n" + _INDENT * (level + 1), "\n" + _INDENT * level
            return [
                f'{{{inner}"b64": "{base64.b64encode(value).decode()}"{outer}}}'
                for value in array.ravel()
            ]
        return [_quoted(value.decode("utf-8", "surrogateescape")) for value in array.ravel()]
    if np.issubdtype(array.dtype, np.floating):
        return decimal_texts(array)
    if array.dtype == np.bool_:
        return ["true" if value else "false" for value in array.ravel().tolist()]
    return [str(value) for value in array.ravel().tolist()]


def _quoted(text: str) -> str:
    return f'"{_TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], text)}"'


def decimal_texts(array: Array) -> list[str]:
    """Return floats in six digits where that reads back the same, else in full precision.

    References:
        `WriteDecimal` in tensorflow_serving/util/json_tensor.cc.
    """
    values = array.ravel()
    full_digits = 9 if values.dtype == np.float32 else 17
    texts = [f"{value:.6g}" for value in values.tolist()]
    read_back = np.array(texts, dtype=np.float64).astype(values.dtype)
    differs = (read_back != values).tolist()
    for index, text in enumerate(texts):
        if text in _NOT_FINITE:
            texts[index] = _NOT_FINITE[text]
            continue
        if differs[index]:
            text = f"{float(values[index]):.{full_digits}g}"
        # A list must not mix 1 and 0.5: clients take the type from the token.
        if "." not in text and "e" not in text:
            text += ".0"
        texts[index] = text
    return texts
