"""Read CSV in columnar blocks of whole records, and find the line numbers of records.

Arrow's streaming reader is not used: it reads ahead in its own thread, and deadlocks if it fails
while that thread waits for a Python stream.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from components.interactions.errors import UnreadableFileError
from components.interactions.sources.block import (
    READ_ERRORS,
    WRONG_NUMBER_OF_VALUES,
    BadRow,
    Block,
    open_input,
    show_value,
)

# The csv module's default limit (128 KiB) is lower than that of the columnar reader.
_LONGEST_FIELD = (1 << 31) - 1
# The parser appends a row of these marks to its input. If this row is not the last one of the
# result, the input ends inside a quoted value.
_END_MARK = b"\x1eend\x1e"
_UNCLOSED = "a quote is never closed"
# Assume that a record longer than this has an unclosed quote, or that the file is not text.
_LONGEST_RECORD_BLOCKS = 4
_NUM_ENDS_TRIED = 8


def read_csv_blocks(
    path: str, header: Sequence[str], columns: Sequence[str], delimiter: str, block_bytes: int
) -> Iterator[Block]:
    """Yield the blocks of a CSV file in order; see `files.read_blocks`."""
    next_row = 0
    parser = _Parser(header, columns, delimiter)
    try:
        with open_input(path) as stream:
            rest = b""
            while content := stream.read(block_bytes):
                rest += content
                for end in _likely_ends(rest):
                    block = parser.parse(rest[:end], next_row)
                    if block is not None:
                        next_row += len(block.rows) + len(block.malformed)
                        yield block
                        rest = rest[end:]
                        break
                else:
                    if len(rest) > block_bytes * _LONGEST_RECORD_BLOCKS:
                        problem = f"no row ends within the {len(rest):,} bytes after it"
                        problem = _UNCLOSED if b'"' in rest else problem
                        raise _unreadable(path, next_row, delimiter, problem)
            if rest:
                block = parser.parse(rest, next_row)
                if block is None:
                    raise _unreadable(path, next_row, delimiter, _UNCLOSED)
                yield block
    except (pa.ArrowInvalid, *READ_ERRORS) as error:
        raise _unreadable(path, next_row, delimiter, str(error)) from error


def csv_records(stream: Any, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number, counted from 1, and the values of each record, including the header.

    This is slow, and only used for headers and messages. Blank lines count as lines but not as
    records. Bytes that are not UTF-8 are replaced.

    Raises:
        UnicodeError: The stream is UTF-16.
    """
    if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise UnicodeError("the encoding must be UTF-8, but is UTF-16")
    stream.seek(0)
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    # The csv module rejects NUL characters; the columnar reader accepts them.
    reader = csv.reader((line.replace("\0", "\ufffd") for line in text), delimiter=delimiter)
    line = 1
    for record in reader:
        if record:
            yield line, record
        line = reader.line_num + 1


class LineLocator:
    """Line numbers of data rows; rows must be requested in ascending order."""

    def __init__(self, stream: Any, delimiter: str):
        self._records = csv_records(stream, delimiter)
        next(self._records, None)
        self._row = -1
        self._line = 0

    def line_of(self, row: int) -> int:
        """Return the line number of `row`, counted from 0 without the header and blank lines."""
        while self._row < row:
            self._line, _ = next(self._records)
            self._row += 1
        return self._line


def _likely_ends(content: bytes) -> Iterator[int]:
    """Yield positions at which the last whole record may end, the most likely one first.

    A line end is the end of a record if an even number of quotes precedes it. Quotes inside
    unquoted values make that count wrong, so the last few line ends are yielded as well.
    """
    newline = b"\n" if b"\n" in content else b"\r"
    end = last = content.rfind(newline) + 1
    odd = content.count(b'"', 0, end) % 2
    while end and odd:
        start = content.rfind(newline, 0, end - 1) + 1
        odd ^= content.count(b'"', start, end) % 2
        end = start
    if end:
        yield end
    for _ in range(_NUM_ENDS_TRIED):
        if not last:
            return
        if last != end:
            yield last
        last = content.rfind(newline, 0, last - 1) + 1


class _Parser:
    """Parser of the consecutive parts of a file, of which only the first has a header."""

    def __init__(self, header: Sequence[str], columns: Sequence[str], delimiter: str):
        self._header = list(header)
        self._columns = list(columns)
        self._delimiter = delimiter
        self._end_row = b"\n" + delimiter.encode().join([_END_MARK] * len(header)) + b"\n"
        self._has_header = True

    def parse(self, content: bytes, first_row: int) -> Block | None:
        """Return the rows of a part, or None if it ends inside a quoted value."""
        content += self._end_row
        malformed: list[BadRow] = []
        try:
            table = self._read(content, first_row, malformed)
        except pa.ArrowInvalid:
            # Arrow cannot report a malformed row that is not UTF-8. Parse the bytes as Latin-1, in
            # which every byte is valid.
            as_latin_1: list[BadRow] = []
            table = self._read(content.decode("latin-1").encode(), first_row, as_latin_1)
            table = pa.table({name: _from_latin_1(table[name]) for name in self._columns})
            malformed = [
                replace(row, value=show_value(row.value.encode("latin-1"))) for row in as_latin_1
            ]
        last = table[0][-1].as_py() if len(table) else None
        if last != _END_MARK:
            return None
        self._has_header = False
        num_rows = len(table) - 1
        skipped = [row.row - first_row for row in malformed]
        rows = np.arange(first_row, first_row + num_rows + len(skipped), dtype=np.int64)
        arrays = {name: _one_array(table[name].slice(0, num_rows)) for name in self._columns}
        return Block(arrays, np.delete(rows, skipped), malformed)

    def _read(self, content: bytes, first_row: int, malformed: list[BadRow]) -> pa.Table:
        first_number = 2 if self._has_header else 1

        def skip(row: Any) -> str:
            text = f"{row.actual_columns} values instead of {row.expected_columns}: {row.text}"
            number = first_row + row.number - first_number
            malformed.append(BadRow(number, "", text, WRONG_NUMBER_OF_VALUES))
            return "skip"

        return pa_csv.read_csv(
            pa.BufferReader(content),
            # Arrow reports the numbers of malformed rows only if it uses no threads.
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                block_size=len(content) + 1,
                column_names=None if self._has_header else self._header,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=self._columns,
                column_types=dict.fromkeys(self._columns, pa.binary()),
                strings_can_be_null=False,
            ),
        )


def _one_array(column: pa.ChunkedArray) -> Any:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return pa.concat_arrays(combined.chunks) if combined.chunks else pa.array([], column.type)
    return combined


def _from_latin_1(column: pa.ChunkedArray) -> Any:
    values = column.to_pylist()
    return pa.array([value.decode().encode("latin-1") for value in values], pa.binary())


def _unreadable(path: str, num_rows: int, delimiter: str, problem: str) -> UnreadableFileError:
    line = 1
    if num_rows > 0:
        with open_input(path) as stream:
            line = LineLocator(stream, delimiter).line_of(num_rows - 1)
    hint = ""
    if problem == _UNCLOSED:
        hint = ". If a value after that line begins with a quote, check that it ends with one"
    return UnreadableFileError(f"{path} cannot be read as CSV after line {line}: {problem}{hint}")
