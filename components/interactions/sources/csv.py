"""Read CSV in columnar blocks of whole records with their line numbers.

Arrow's streaming reader is not used: it reads ahead in its own thread, and deadlocks if it fails
while that thread waits for a Python stream.
"""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from components.interactions.sources.block import (
    MIXED_QUOTES,
    READ_ERRORS,
    WRONG_NUMBER_OF_VALUES,
    BadRow,
    Block,
    as_utf8,
    open_input,
    show_value,
)
from components.interactions.sources.csv_dialect import UNCLOSED, Dialect, csv_records, unreadable

# The parser appends a row of these marks to its input. If this row is not the last one of the
# result, the input ends inside a quoted value.
_END_MARK = b"\x1eend\x1e"
# Assume that a record longer than this has an unclosed quote, or that the file is not text.
_LONGEST_RECORD_BLOCKS = 4
_NUM_ENDS_TRIED = 8


def read_csv_blocks(
    path: str, header: Sequence[str], columns: Sequence[str], dialect: Dialect, block_bytes: int
) -> Iterator[Block]:
    """Yield the blocks of a CSV file in order; see `files.read_blocks`."""
    parser = _Parser(header, columns, dialect)
    header_lines = re.compile(rb"(?:[^\r\n]*(?:\r\n|\r|\n)){%d}" % dialect.num_header_lines)
    is_in_header = True
    try:
        with open_input(path) as opened:
            stream = as_utf8(opened)
            rest = b""
            while content := stream.read(block_bytes):
                rest += content
                if is_in_header:
                    match = header_lines.match(rest)
                    # The last line end may be the first half of a longer one.
                    if match is None or match.end() == len(rest):
                        continue
                    rest, is_in_header = rest[match.end() :], False
                for end in _likely_ends(dialect.hide_escaped_quotes(rest)):
                    block = parser.parse(rest[:end])
                    if block is not None:
                        yield block
                        rest = rest[end:]
                        break
                else:
                    if len(rest) > block_bytes * _LONGEST_RECORD_BLOCKS:
                        problem = f"no row ends within the {len(rest):,} bytes after it"
                        problem = UNCLOSED if b'"' in rest else problem
                        raise unreadable(path, parser.num_lines, problem)
            if rest:
                block = parser.parse(rest)
                if block is None:
                    raise unreadable(path, parser.num_lines, UNCLOSED)
                yield block
    except (pa.ArrowInvalid, *READ_ERRORS) as error:
        raise unreadable(path, parser.num_lines, str(error)) from error


def _likely_ends(content: bytes) -> Iterator[int]:
    """Yield positions at which the last whole record may end, the most likely one first.

    A line end is the end of a record if an even number of quotes precedes it. Quotes inside
    unquoted values make that count wrong, so the last few line ends are yielded as well.
    """
    newline = _newline(content)
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
    """Parser of the consecutive parts of a file after its header.

    `num_lines` is the number of lines of the header and of the parts that have been parsed.
    """

    def __init__(self, header: Sequence[str], columns: Sequence[str], dialect: Dialect):
        self.num_lines = dialect.num_header_lines
        self._header = list(header)
        self._columns = list(columns)
        self._dialect = dialect
        delimiter = dialect.delimiter.encode()
        self._end_row = b"\n" + delimiter.join([_END_MARK] * len(header)) + b"\n"

    def parse(self, content: bytes) -> Block | None:
        """Return the rows of a part, or None if it ends inside a quoted value."""
        content = self._dialect.double_quotes(content)
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
        before = self.num_lines
        lines = self._lines(content, num_rows + len(malformed))
        bad = {i: (text, WRONG_NUMBER_OF_VALUES) for i, text in malformed.items()}
        columns = table.slice(0, num_rows)
        if misquoted := self._misquoted(content, lines - before):
            bad |= {i: (text, MIXED_QUOTES) for i, text in misquoted.items()}
            rows = np.delete(np.arange(len(lines)), list(malformed))
            columns = columns.filter(pa.array(~np.isin(rows, list(misquoted))))
        return Block(
            {name: columns[name].combine_chunks() for name in self._columns},
            np.delete(lines, list(bad)),
            [BadRow(int(lines[i]), "", text, reason) for i, (text, reason) in bad.items()],
        )

    def _lines(self, content: bytes, num_records: int) -> npt.NDArray[np.int64]:
        """Return the line at which each record of a part begins, and add its lines to the total."""
        newline = _newline(content)
        before = self.num_lines
        num_lines = content.count(newline) + (not content.endswith(newline))
        self.num_lines += num_lines
        if num_lines == num_records:
            return np.arange(before + 1, before + 1 + num_records, dtype=np.int64)
        # There are blank lines or values with several lines.
        found = [line for line, _ in csv_records(io.BytesIO(content), self._dialect.delimiter)]
        return before + np.resize(np.array(found, np.int64), num_records)

    def _misquoted(self, content: bytes, lines: npt.NDArray[np.int64]) -> dict[int, str]:
        """Return the text of the records in which backslashes do not fit the quotes, by index."""
        if not self._dialect.has_stray_quotes(content):
            return {}
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == _newline(content)[0])
        begins = np.append(np.concatenate(([0], ends + 1))[lines - 1], len(content))
        at = [match.start() for match in re.finditer(rb'\\"', content)]
        suspects = np.unique(np.searchsorted(begins, at, side="right") - 1)
        texts = {int(i): content[begins[i] : begins[i + 1]] for i in suspects}
        return {
            i: show_value(text.rstrip(b"\r\n"))
            for i, text in texts.items()
            if self._dialect.has_stray_quotes(text)
        }

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
                column_names=self._header,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._dialect.delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=self._columns,
                column_types=dict.fromkeys(self._columns, pa.binary()),
                strings_can_be_null=False,
            ),
        )


def _newline(content: bytes) -> bytes:
    return b"\n" if b"\n" in content else b"\r"


def _from_latin_1(column: pa.ChunkedArray) -> Any:
    values = column.to_pylist()
    return pa.array([value.decode().encode("latin-1") for value in values], pa.binary())
