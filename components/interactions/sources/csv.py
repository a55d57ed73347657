"""Read CSV in columnar blocks of whole records with their line numbers.

Arrow's streaming reader is not used: it reads ahead in its own thread, and deadlocks if it fails
while that thread waits for a Python stream.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
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
    parser = _Parser(header, columns, delimiter)
    try:
        with open_input(path) as stream:
            rest = b""
            while content := stream.read(block_bytes):
                rest += content
                for end in _likely_ends(rest):
                    block = parser.parse(rest[:end])
                    if block is not None:
                        yield block
                        rest = rest[end:]
                        break
                else:
                    if len(rest) > block_bytes * _LONGEST_RECORD_BLOCKS:
                        problem = f"no row ends within the {len(rest):,} bytes after it"
                        problem = _UNCLOSED if b'"' in rest else problem
                        raise _unreadable(path, parser.num_lines, problem)
            if rest:
                block = parser.parse(rest)
                if block is None:
                    raise _unreadable(path, parser.num_lines, _UNCLOSED)
                yield block
    except (pa.ArrowInvalid, *READ_ERRORS) as error:
        raise _unreadable(path, parser.num_lines, str(error)) from error


def csv_records(stream: Any, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number, counted from 1, and the values of each record, including the header.

    This is slow. Blank lines count as lines but not as records. Bytes that are not UTF-8 are
    replaced.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    # The csv module rejects NUL characters; the columnar reader accepts them.
    reader = csv.reader((line.replace("\0", "\ufffd") for line in text), delimiter=delimiter)
    line = 1
    for record in reader:
        if record:
            yield line, record
        line = reader.line_num + 1


def check_encoding(stream: Any) -> None:
    """Raise UnicodeError if a stream, which is then at its start again, is UTF-16."""
    if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise UnicodeError("the encoding must be UTF-8, but is UTF-16")
    stream.seek(0)


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
    """Parser of the consecutive parts of a file, of which only the first has a header.

    `num_lines` is the number of lines in the parts that have been parsed.
    """

    def __init__(self, header: Sequence[str], columns: Sequence[str], delimiter: str):
        self.num_lines = 0
        self._header = list(header)
        self._columns = list(columns)
        self._delimiter = delimiter
        self._end_row = b"\n" + delimiter.encode().join([_END_MARK] * len(header)) + b"\n"

    def parse(self, content: bytes) -> Block | None:
        """Return the rows of a part, or None if it ends inside a quoted value."""
        marked = content + self._end_row
        malformed: dict[int, str] = {}
        try:
            table = self._read(marked, malformed)
        except pa.ArrowInvalid:
            # Arrow cannot report a malformed row that is not UTF-8. Parse the bytes as Latin-1, in
            # which every byte is valid.
            malformed.clear()
            table = self._read(marked.decode("latin-1").encode(), malformed)
            table = pa.table({name: _from_latin_1(table[name]) for name in self._columns})
            malformed = {i: show_value(text.encode("latin-1")) for i, text in malformed.items()}
        if not len(table) or table[0][-1].as_py() != _END_MARK:
            return None
        num_rows = len(table) - 1
        num_headers = int(not self.num_lines)
        lines = self._lines(content, num_headers + num_rows + len(malformed))
        arrays = {name: table[name].slice(0, num_rows).combine_chunks() for name in self._columns}
        return Block(
            arrays,
            np.delete(lines, list(malformed))[num_headers:],
            [BadRow(int(lines[i]), "", t, WRONG_NUMBER_OF_VALUES) for i, t in malformed.items()],
        )

    def _lines(self, content: bytes, num_records: int) -> npt.NDArray[np.int64]:
        """Return the line at which each record of a part begins, and add its lines to the total."""
        newline = b"\n" if b"\n" in content else b"\r"
        before = self.num_lines
        num_lines = content.count(newline) + (not content.endswith(newline))
        self.num_lines += num_lines
        if num_lines == num_records:
            return np.arange(before + 1, before + 1 + num_records, dtype=np.int64)
        # There are blank lines or values with several lines.
        found = [line for line, _ in csv_records(io.BytesIO(content), self._delimiter)]
        return before + np.resize(np.array(found, np.int64), num_records)

    def _read(self, content: bytes, malformed: dict[int, str]) -> pa.Table:
        """Read a part, and add its malformed records to `malformed` by their index."""

        def skip(row: Any) -> str:
            values = f"{row.actual_columns} values instead of {row.expected_columns}"
            malformed[row.number - 1] = f"{values}: {row.text}"
            return "skip"

        return pa_csv.read_csv(
            pa.BufferReader(content),
            # Arrow reports the numbers of malformed rows only if it uses no threads.
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                block_size=len(content) + 1,
                column_names=self._header if self.num_lines else None,
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


def _from_latin_1(column: pa.ChunkedArray) -> Any:
    values = column.to_pylist()
    return pa.array([value.decode().encode("latin-1") for value in values], pa.binary())


def _unreadable(path: str, line: int, problem: str) -> UnreadableFileError:
    hint = ""
    if problem == _UNCLOSED:
        hint = ". If a value after that line begins with a quote, check that it ends with one"
    return UnreadableFileError(f"{path} cannot be read as CSV after line {line}: {problem}{hint}")
