"""Detection of the dialect of a CSV file: its header, delimiter and quotes."""

import csv
import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from components.interactions.errors import UnreadableFileError
from components.interactions.sources.block import as_utf8

UNCLOSED = "a quote is never closed"
# The csv module's default limit (128 KiB) is lower than that of the columnar reader.
_LONGEST_FIELD = (1 << 31) - 1
# The first records decide the delimiter and the header.
_NUM_FIRST_RECORDS = 5
_DELIMITERS = (",", ";", "\t", "|", "\x01", "~", "^")
_NO_DELIMITER = "\x1f"
_ONLY_DELIMITERS = re.compile(r"[\s,;|]*")
# Excel's first line that names the delimiter.
_NAMED_DELIMITER = re.compile(r"sep=([\x01-\x7f])", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[+-]?[\d.]+\s*")
_PROSE = re.compile(r"^#\s|^#$|\w \w+ \w")
# What a quoted value contains if its quotes are doubled, or escaped by backslashes.
_DOUBLED = rb'[^"]*(?:""[^"]*)*'
_ESCAPED = rb'[^"\\]*(?:\\.[^"\\]*)*'


@dataclass(frozen=True)
class Dialect:
    """The dialect of a CSV file.

    Attributes:
        escapes_quotes: Whether a quote in a quoted value is written with a backslash, as in Spark,
            instead of twice.
        num_header_lines: Number of lines before the first row.
    """

    delimiter: str = ","
    escapes_quotes: bool = False
    num_header_lines: int = 1

    def has_stray_quotes(self, content: bytes) -> bool:
        """Return whether a quote after a backslash neither is doubled nor encloses a value."""
        if b"\\" not in content or b'\\"' not in content:  # the search for one byte is faster
            return False
        return b'"' in _quoted(self.delimiter, _DOUBLED).sub(b"", content)

    def hide_escaped_quotes(self, content: bytes) -> bytes:
        """Return content of the same length in which each quote encloses a value."""
        return re.sub(rb'\\[\\"]', b"__", content) if self.escapes_quotes else content

    def double_quotes(self, content: bytes) -> bytes:
        """Return content whose quotes in quoted values are doubled instead of escaped."""
        if not self.escapes_quotes:
            return content
        return _quoted(self.delimiter, _ESCAPED).sub(
            lambda match: re.sub(rb'\\([\\"])', _unescape, match[0]), content
        )


class PlainFiles:
    """Dialects of files without quotes and with one delimiter, by suffix and first line.

    Another such file has the same dialect if its first line is equal and its first rows have as
    many values. To find that out takes a small part of the time of a detection.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], tuple[Dialect, list[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, path: str, content: bytes, dialect: Dialect, header: list[str]) -> None:
        """Add the dialect and header of a file, given its first bytes, if it is such a file."""
        first = content.partition(b"\n")[0]
        delimiter = dialect.delimiter
        if (
            _is_plain(content)
            and not first.startswith(b"#")
            and dialect == Dialect(delimiter)
            and [name for name in _DELIMITERS if name.encode() in first] == [delimiter]
            and len(header) == first.count(delimiter.encode()) + 1
        ):
            self._known[os.path.splitext(path)[1], first] = dialect, header

    def find(self, path: str, content: bytes) -> tuple[Dialect, list[str]] | None:
        """Return the dialect and header of a file, given its first bytes; None if unknown."""
        first, *rows = content.split(b"\n", _NUM_FIRST_RECORDS)
        known = self._known.get((os.path.splitext(path)[1], first))
        if known is None or not _is_plain(content):
            return None
        delimiter = known[0].delimiter.encode()
        rows = rows[: _NUM_FIRST_RECORDS - 1]
        if rows and not rows[-1]:  # the end of the file
            rows.pop()
        return known if {row.count(delimiter) for row in rows} == {first.count(delimiter)} else None


def inspect_csv(
    path: str, stream: Any, delimiter: str | None, num_bytes: int, plain: PlainFiles
) -> tuple[Dialect, list[str]]:
    """Return the dialect of a file and the names of its columns, which are empty without rows.

    Blank lines, Excel's `sep=;` and lines that begin with `#` may precede the header, which may be
    the last of these lines. The delimiter is detected if it is None. Only the first `num_bytes` are
    read. The dialect is added to `plain`.

    Raises:
        UnicodeError: The file is not text.
        UnreadableFileError: A quote of the header is never closed.
    """
    content = as_utf8(stream).read(num_bytes)
    if b"\0" in content.partition(b"\n")[0]:
        raise UnicodeError("it is not text")
    line, comment_line, named = _find_header(content)
    delimiter = named or delimiter
    present = [name for name in _DELIMITERS if name.encode() in content] or _DELIMITERS[:1]
    candidates = present if delimiter is None else [delimiter]
    found = [(_first_records(content, name, line), name) for name in candidates]
    records, delimiter = max(found, key=lambda pair: (_fits(pair[0]), _width(pair[0])))
    if comment_line and _is_header(commented := _first_records(content, delimiter, comment_line)):
        records = commented
    if len(records) < 2:
        if content.count(b'"') % 2:
            raise unreadable(path, line - 1, UNCLOSED)
        return Dialect(delimiter), []
    (_, header), (first_row_line, _) = records[:2]
    # Some programs end only the header, or only the rows, with a delimiter.
    if {len(values) for _, values in records[1:]} == {len(header) + 1} and not any(
        values[-1] for _, values in records[1:]
    ):
        header.append("")
    elif not header[-1] and all(len(values) == len(header) - 1 for _, values in records[1:]):
        header.pop()
    dialect = Dialect(delimiter, _escapes_quotes(content, delimiter), first_row_line - 1)
    header = [name.lstrip("\ufeff").strip() for name in header]
    plain.add(path, content, dialect, header)
    return dialect, header


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


def unreadable(path: str, line: int, problem: str) -> UnreadableFileError:
    """Return the error for a problem after a line of a file."""
    hint = ""
    if problem == UNCLOSED:
        hint = ". If a value after that line begins with a quote, check that it ends with one"
    return UnreadableFileError(f"{path} cannot be read as CSV after line {line}: {problem}{hint}")


def _escapes_quotes(content: bytes, delimiter: str) -> bool:
    """Return whether the quotes of a file make sense only if backslashes escape them."""
    return Dialect(delimiter).has_stray_quotes(content) and b'"' not in _quoted(
        delimiter, _ESCAPED
    ).sub(b"", content)


@cache
def _quoted(delimiter: str, inside: bytes) -> "re.Pattern[bytes]":
    """Return a pattern of whole quoted values; the last one may be cut off."""
    no_edge = rb"[^%s\r\n]" % re.escape(delimiter.encode())
    return re.compile(rb'(?<!%s)"%s(?:"(?!%s)|\Z)' % (no_edge, inside, no_edge), re.DOTALL)


def _is_plain(content: bytes) -> bool:
    return not any(sign in content for sign in (b'"', b"\0", b"\r"))


def _unescape(match: "re.Match[bytes]") -> bytes:
    return b'""' if match[1] == b'"' else b"\\"


def _find_header(content: bytes) -> tuple[int, int | None, str | None]:
    """Return the first line of the header or the rows.

    Further results are the line of the last comment before it, and the delimiter in a line `sep=;`,
    or None.
    """
    comment = delimiter = None
    line = 1
    for line, (text, *_) in csv_records(io.BytesIO(content), _NO_DELIMITER):
        text = text.lstrip("\ufeff")
        if match := _NAMED_DELIMITER.fullmatch(text):
            delimiter = match[1]
        elif text.startswith("#"):
            comment = line
        elif not _ONLY_DELIMITERS.fullmatch(text):
            break
    return line, comment, delimiter


def _first_records(content: bytes, delimiter: str, line: int) -> list[tuple[int, list[str]]]:
    records = csv_records(io.BytesIO(content), delimiter)
    records = itertools.dropwhile(lambda record: record[0] < line, records)
    return list(itertools.islice(records, _NUM_FIRST_RECORDS))


def _width(records: Sequence[tuple[int, list[str]]]) -> int:
    return len(records[0][1]) if records else 0


def _is_header(commented: Sequence[tuple[int, list[str]]]) -> bool:
    """Return whether a comment is the header of the records that follow it.

    Before another header, it is prose with as many delimiters.
    """
    if not _fits(commented):
        return False
    (_, names), (_, values) = commented[:2]
    return any(map(_NUMBER.fullmatch, values)) or not any(map(_PROSE.search, names))


def _fits(records: Sequence[tuple[int, list[str]]]) -> bool:
    """Return whether the header and the first rows have equally many values, and several."""
    return _width(records) > 1 and len({len(values) for _, values in records}) == 1
