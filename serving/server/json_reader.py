"""Reads a request's JSON with the error texts of RapidJSON, which TensorFlow Serving uses."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any

from serving.errors import InvalidArgumentError
from serving.server.json_writer import value_text

# Python's message -> RapidJSON's. The offsets can differ by a few bytes: the two notice the same
# fault at slightly different places.
_MESSAGES = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Extra data": "The document root must not be followed by other values.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_MAX_SURELY_FINITE_DIGITS = 300  # The largest double has 309 digits.
_STRING_OR_NUMBER = re.compile(
    r'"(?:[^"\\]|\\.)*"|(-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)', re.DOTALL
)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a request body, which must be a JSON object.

    NaN and Infinity are numbers; strings keep bytes that are no UTF-8 as surrogate escapes. A byte
    order mark is skipped, as RapidJSON's `EncodedInputStream` does.

    Raises:
        InvalidArgumentError: If it is no JSON or no object.
    """
    if not body:
        raise InvalidArgumentError("JSON Parse error: The document is empty")
    mark = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    text = body[mark:].decode("utf-8", "surrogateescape")
    if not text.strip(" \t\r\n"):
        raise InvalidArgumentError(
            f"JSON Parse error: The document is empty. at offset: {len(body)}"
        )
    try:
        document = json.loads(text, parse_int=_integer, parse_float=_fraction)
    except json.JSONDecodeError as error:
        message = _MESSAGES.get(error.msg.removesuffix(": ").removesuffix(":"))
        if message is None:
            message = _missing_comma(text[: error.pos])
        raise _parse_error(message, mark + _num_bytes(text[: error.pos])) from error
    except _NumberTooBigError as error:
        message = "Number too big to be stored in double."
        raise _parse_error(message, mark + _num_bytes(_before_too_big(text))) from error
    except RecursionError as error:
        raise InvalidArgumentError("JSON Parse error: nested too deeply") from error
    if not isinstance(document, dict):
        raise format_error(document, "Is not object")
    return document


class _NumberTooBigError(Exception):
    """A number has no double."""


def _integer(text: str) -> int:
    if len(text) > _MAX_SURELY_FINITE_DIGITS:  # Also more than Python turns into an `int`.
        _fraction(text)
    return int(text)


def _fraction(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NumberTooBigError
    return value


def _before_too_big(text: str) -> str:
    for match in _STRING_OR_NUMBER.finditer(text):
        if match[1] and math.isinf(float(match[1])):
            return text[: match.start()]
    return text


def _parse_error(message: str, offset: int) -> InvalidArgumentError:
    return InvalidArgumentError(f"JSON Parse error: {message} at offset: {offset}")


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def format_error(value: Any, text: str) -> InvalidArgumentError:
    """Return the error that quotes a value which is formed wrongly."""
    return InvalidArgumentError(f"JSON Value: {value_text(value)} {text}")


def type_name(value: Any) -> str:
    """Return RapidJSON's name for the type of a value."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, (int, float)):
        return "Number"
    if isinstance(value, str):
        return "String"
    return "Array" if isinstance(value, list) else "Object"


def _missing_comma(text_before: str) -> str:
    open_brackets: list[str] = []
    for match in _STRING_OR_BRACKET.finditer(text_before):
        if match[0] in "[{":
            open_brackets.append(match[0])
        elif match[0] in "]}" and open_brackets:
            open_brackets.pop()
    if open_brackets and open_brackets[-1] == "{":
        return "Missing a comma or } after an object member."
    return "Missing a comma or ] after an array element."
