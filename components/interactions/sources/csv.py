"""Finds the line of a CSV file on which a record starts; slow, and only run for bad rows."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from components.interactions.errors import UnreadableFileError
from components.interactions.sources.block import READ_ERRORS, Block, MisshapenRow, open_input

# The csv module's own limit (128 KiB) is lower than that of the columnar reader.
_LONGEST_FIELD = (1 << 31) - 1


def csv_records(stream: Any, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields each record, the header too, with the 1-based line that it starts on.

    Blank lines count as lines but are no records. Bytes that are not UTF-8 are replaced.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    # The csv module refuses NUL, the columnar reader does not.
    reader = csv.reader((line.replace("\0", "\ufffd") for line in text), delimiter=delimiter)
    line = 1
    for record in reader:
        if record:
            yield line, record
        line = reader.line_num + 1


class LineLocator:
    """Tells the line of a data row; rows must be asked for in ascending order."""

    def __init__(self, stream: Any, delimiter: str):
        self._records = csv_records(stream, delimiter)
        next(self._records, None)
        self._row = -1
        self._line = 0

    def line_of(self, row: int) -> int:
        """Returns the line of a row, counted from 0 without header and blank lines."""
        while self._row < row:
            self._line, _ = next(self._records)
            self._row += 1
        return self._line


WRONG_WIDTH = "wrong number of values"
# A row of these is put behind what is parsed. Where it does not come out as the last row, a quoted
# value was still open and has swallowed it.
_END_MARK = b"\x1eend\x1e"
_UNCLOSED = "a quote is never closed"
# A record that is longer than this many blocks is taken for a quote that never closes, or for no
# text at all.
_LONGEST_RECORD_BLOCKS = 4
_NUM_ENDS_TRIED = 8


def read_csv_blocks(
    path: str, header: Sequence[str], columns: list[str], delimiter: str, block_bytes: int
) -> Iterator[Block]:
    """Yields the blocks of a CSV file in order; see `blocks.read_blocks`."""
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
                        next_row += len(block.rows) + len(block.misshapen)
                        yield block
                        rest = rest[end:]
                        break
                else:
                    if len(rest) > block_bytes * _LONGEST_RECORD_BLOCKS:
                        raise _unreadable(path, next_row, delimiter, _endless(rest))
            if rest:
                block = parser.parse(rest, next_row)
                if block is None:
                    raise _unreadable(path, next_row, delimiter, _UNCLOSED)
                yield block
    except (pa.ArrowInvalid, *READ_ERRORS) as error:
        raise _unreadable(path, next_row, delimiter, str(error)) from error


def _likely_ends(content: bytes) -> Iterator[int]:
    """Yields where the last whole record may end, the likeliest place first.

    A line end is one of a record if an even number of quotes stands before it. Quotes in the middle
    of unquoted values upset the count, so the last line ends follow, whatever their count.
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


def _endless(rest: bytes) -> str:
    """Says what is wrong with a stretch that is too long for a record."""
    if b'"' in rest:
        return _UNCLOSED
    return f"no row ends within the {len(rest):,} bytes after it"


class _Parser:
    """Parses stretches of one file; only the first holds the header."""

    def __init__(self, header: Sequence[str], columns: list[str], delimiter: str):
        self._header = list(header)
        self._columns = columns
        self._delimiter = delimiter
        marks = delimiter.encode().join([_END_MARK] * len(header))
        self._end_row = b"\n" + marks + b"\n"
        self._has_header = True

    def parse(self, content: bytes, first_row: int) -> Block | None:
        """Returns the rows of a stretch; None where it ends inside of a quoted value."""
        content += self._end_row
        misshapen: list[MisshapenRow] = []
        try:
            table = self._read(content, first_row, misshapen)
        except pa.ArrowInvalid:
            # Arrow cannot report a misshapen row that is not UTF-8. Read as Latin-1, all is text.
            read_as_latin_1: list[MisshapenRow] = []
            table = self._read(content.decode("latin-1").encode(), first_row, read_as_latin_1)
            table = pa.table({name: _from_latin_1(table[name]) for name in self._columns})
            misshapen = [replace(row, value=_show(row.value)) for row in read_as_latin_1]
        last = table[0][-1].as_py() if len(table) else None
        if last != _END_MARK:
            return None
        self._has_header = False
        num_rows = len(table) - 1
        taken = [row.row - first_row for row in misshapen]
        rows = np.arange(first_row, first_row + num_rows + len(taken), dtype=np.int64)
        arrays = {name: _one_array(table[name].slice(0, num_rows)) for name in self._columns}
        return Block(arrays, np.delete(rows, taken), misshapen)

    def _read(self, content: bytes, first_row: int, misshapen: list[MisshapenRow]) -> pa.Table:
        first_number = 2 if self._has_header else 1

        def set_aside(row: Any) -> str:
            misshapen.append(
                MisshapenRow(
                    first_row + row.number - first_number,
                    "",
                    f"{row.actual_columns} values instead of {row.expected_columns}: {row.text}",
                    WRONG_WIDTH,
                )
            )
            return "skip"

        return pa_csv.read_csv(
            pa.BufferReader(content),
            # Without threads Arrow knows the number of a misshapen row.
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                block_size=len(content) + 1,
                column_names=None if self._has_header else self._header,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=set_aside
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


def _show(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", errors="backslashreplace")


def _unreadable(path: str, num_rows: int, delimiter: str, problem: str) -> UnreadableFileError:
    line = 1
    if num_rows > 0:
        with open_input(path) as stream:
            line = LineLocator(stream, delimiter).line_of(num_rows - 1)
    hint = (
        ". If a value after that line begins with a quote, see that it ends with one"
        if problem == _UNCLOSED
        else ""
    )
    return UnreadableFileError(f"{path} cannot be read as CSV beyond line {line}: {problem}{hint}")
