"""Read JSON Lines in columnar blocks.

Python's parser is used because it keeps each value: Arrow's reader converts text that looks like a
time, and rejects a block with a malformed line or with values of several types.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from components.interactions.errors import UnreadableFileError
from components.interactions.sources.block import (
    NOT_JSON,
    NOT_UTF8,
    READ_ERRORS,
    WRONG_KIND,
    BadRow,
    Block,
    as_utf8,
    open_input,
    show_value,
)

_FIRST_BYTES = 1 << 20
_LONGEST_LINE = 64 << 20
# Parsed objects are several times larger than their text.
_MAX_BLOCK_BYTES = 4 << 20
_PARSE_ERRORS = (ValueError, RecursionError)
_NO_ARRAY = (pa.ArrowException, TypeError, ValueError, OverflowError)


def read_types(stream: Any, num_records: int) -> pa.Schema:
    """Return the keys of the first objects of a stream, and the types of their values.

    Raises:
        UnicodeError: None of the first lines is a JSON object.
    """
    content = as_utf8(stream).read(_FIRST_BYTES)
    whole = content if len(content) < _FIRST_BYTES else content[: content.rfind(b"\n") + 1]
    if content and not whole:
        raise UnicodeError("its first line is longer than 1 MB; write one object per line")
    lines = [line for line in whole.splitlines() if line.strip()][:num_records]
    rows = [row for line in lines if isinstance(row := _parsed(line), dict)]
    if content.strip() and not rows:
        raise UnicodeError(
            "none of its first lines is a JSON object; write one object per line, without the "
            "brackets of an array"
        )
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, _type([row.get(name) for row in rows])) for name in names])


def read_jsonl_blocks(path: str, columns: Sequence[str], block_bytes: int) -> Iterator[Block]:
    """Yield the blocks of a file in order; see `files.read_blocks`.

    If a column of a block has values of several types, its numbers become text.
    """
    num_lines = 0
    rest = b""
    try:
        with open_input(path) as opened:
            stream = as_utf8(opened)
            while content := stream.read(min(block_bytes, _MAX_BLOCK_BYTES)):
                *lines, rest = (rest + content).split(b"\n")
                if lines:
                    yield _block(lines, num_lines, columns)
                    num_lines += len(lines)
                if len(rest) > _LONGEST_LINE:
                    raise OSError(f"no line ends within the {len(rest):,} bytes after it")
            if rest:
                yield _block([rest], num_lines, columns)
    except READ_ERRORS as error:
        raise UnreadableFileError(
            f"{path} cannot be read as JSON Lines after line {num_lines}: {error}"
        ) from error


def _block(lines: Sequence[bytes], num_before: int, columns: Sequence[str]) -> Block:
    numbers = [number for number, line in enumerate(lines, num_before + 1) if line.strip()]
    texts = [line for line in lines if line.strip()]
    rows = _parsed(b"[" + b",".join(texts) + b"]")  # faster than one by one
    if rows is None or len(rows) != len(texts):
        rows = [_parsed(text) for text in texts]
    bad = [
        BadRow(number, "", show_value(text), NOT_JSON)
        for number, text, row in zip(numbers, texts, rows, strict=True)
        if not isinstance(row, dict)
    ]
    good = [isinstance(row, dict) for row in rows]
    rows = [row if is_good else {} for row, is_good in zip(rows, good, strict=True)]
    arrays = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        array = _array(values)
        if array is None:
            flat = [_as_text(value) for value in values]
            for index, (_, reason) in enumerate(flat):
                if reason and good[index]:
                    good[index] = False
                    bad.append(BadRow(numbers[index], name, repr(values[index]), reason))
            found = [text for text, _ in flat]
            if any(isinstance(text, list) for text in found):
                found = [[text] if isinstance(text, str) else text for text in found]
            array = pa.array(found)
        arrays[name] = array
    keep = pa.array(good, pa.bool_())
    if bad:
        arrays = {name: array.filter(keep) for name, array in arrays.items()}
    # Whether a block has lists depends on its size, so a value alone means a list of it.
    kept = np.array(numbers, np.int64)[np.array(good, bool)]
    return Block(arrays, kept, bad, unwraps_lists=True)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except _PARSE_ERRORS:
        return None


def _array(values: Sequence[Any]) -> Any:
    """Return an array of scalars or of lists of scalars, or None if the values do not fit."""
    try:
        array = pa.array(values)
    except _NO_ARRAY:
        return None
    kind = array.type.value_type if pa.types.is_list(array.type) else array.type
    return None if pa.types.is_nested(kind) else array


def _type(values: Sequence[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except _NO_ARRAY:
        return pa.string()


def _as_text(value: Any) -> tuple[Any, str | None]:
    """Return a value as text or a list of texts, or a reason why that is impossible."""
    if isinstance(value, list):
        parts = [_as_text(part) for part in value if part is not None]
        if any(isinstance(text, list) for text, _ in parts):
            return None, WRONG_KIND.format(found="a nested list", expected="a value or a list")
        return [text for text, _ in parts], next((reason for _, reason in parts if reason), None)
    if isinstance(value, dict):
        return None, WRONG_KIND.format(found="an object", expected="a value or a list")
    if isinstance(value, float):
        return pa.scalar(value).cast(pa.string()).as_py(), None  # as in a column of numbers
    if not isinstance(value, str):
        return None if value is None else json.dumps(value), None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None, NOT_UTF8
    return value, None
