"""Patterns of input files, such as `clicks/{YYYY}-{MM}-{DD}/v{VERSION}/*.csv`, and their files.

A span is a numbered portion of the data. Its number is `{SPAN}`, or for a date, the number of days
since 1970. `{VERSION}` numbers the deliveries of a span. These are the terms of TFX.

Local files are listed without loading Beam.
"""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import Literal, NamedTuple

from components.files import is_remote
from components.interactions.errors import NoInputError
from models.settings import Settings

_EPOCH = date(1970, 1, 1)
_DATE_PARTS = {"YYYY": 4, "MM": 2, "DD": 2}
_PLACEHOLDERS = {"SPAN", "VERSION", *_DATE_PARTS}
_PLACEHOLDER = re.compile(r"\{([A-Z]+)(?::([1-9]\d?))?\}")
# The wildcards of a glob; `**` crosses folders, `*` does not.
_GLOB_PART = re.compile(r"\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]")
# The regular expressions of a name that may follow, and of the rest of a path.
_NOT_HIDDEN = "(?![_.])"
_SEGMENTS = f"(?:[^/]|/{_NOT_HIDDEN})*"
_QUERY_PREFIX = re.compile(r"bigquery:(?!//)\s*", re.IGNORECASE)

SpanKind = Literal["number", "date"]


class InputFile(Settings):
    """A file of a span."""

    path: str
    size_bytes: int


class SpanFiles(Settings):
    """The files of the highest version of a span, in name order."""

    span: int
    version: int | None
    files: tuple[InputFile, ...]


class ChosenSpans(Settings):
    """The spans that a run reads; a source has none if its pattern has none.

    `interactions` is the window, oldest span first, and `missing` has the numbers of the spans in
    it that have no files. `if_empty` is the action if a span of the window has no valid event.
    """

    kind: SpanKind
    interactions: tuple[SpanFiles, ...] = ()
    candidates: SpanFiles | None = None
    queries: SpanFiles | None = None
    missing: tuple[int, ...] = ()
    if_empty: Literal["stop", "warn"] = "stop"

    def of(self, source: Literal["interactions", "candidates", "queries"]) -> tuple[SpanFiles, ...]:
        """Return the spans of a source."""
        snapshots = {"candidates": self.candidates, "queries": self.queries}
        found = snapshots.get(source, self.interactions)
        return found if isinstance(found, tuple) else (found,) if found else ()

    def show(self, span: int) -> str:
        """Format a span number for people; see `show_span`."""
        return show_span(span, self.kind)


class Delivery(NamedTuple):
    """The span, the version if any, and the digits of each placeholder: 7 and 07 differ."""

    span: int
    version: int | None
    spelling: tuple[str, ...]


def span_kind(text: str) -> SpanKind | None:
    """Return the kind of the spans that a pattern divides files into; None if it has none.

    Raises:
        ValueError: A placeholder is unknown, or the placeholders do not identify a span.
    """
    found = [match.groups() for match in _PLACEHOLDER.finditer(text)]
    words = {word for word, _ in found}
    if query_of(text) is not None:
        if _PLACEHOLDERS & words:
            raise ValueError(
                "a query cannot have spans; select the period in the query, such as WHERE day "
                "> DATE_SUB(CURRENT_DATE(), INTERVAL 28 DAY)"
            )
        return None
    parts = words & _DATE_PARTS.keys()
    unknown = f"unknown placeholder {{{min(words - _PLACEHOLDERS, default='')}}}"
    checks = {
        f"{unknown}; use {{SPAN}}, {{VERSION}}, {{YYYY}}, {{MM}} or {{DD}}": words - _PLACEHOLDERS,
        "{YYYY}, {MM} and {DD} have a fixed width": any(w and p in _DATE_PARTS for p, w in found),
        "a date needs {YYYY}, {MM} and {DD}": parts and len(parts) < len(_DATE_PARTS),
        "a span is a number or a date, not both": parts and "SPAN" in words,
        "{VERSION} needs a span, such as {SPAN}": words == {"VERSION"},
        "a number of any length next to another one is ambiguous; give widths, such as {SPAN:4}": (
            re.search(r"\{(SPAN|VERSION)\}(\{|\d)|(\d|\})\{(SPAN|VERSION)\}", text)
        ),
    }
    if problem := next((problem for problem, applies in checks.items() if applies), None):
        raise ValueError(f"{text}: {problem}")
    return "date" if parts else "number" if "SPAN" in words else None


def find_delivery(text: str, path: str) -> Delivery | None:
    """Return the span and version that a path names; None if it does not match.

    Raises:
        ValueError: The path matches, but its date does not exist.
    """
    match = _regex(text).fullmatch(path) or _regex(text, in_folder=True).fullmatch(path)
    if match is None:
        return None
    found = {name: int(digits) for name, digits in match.groupdict().items()}
    try:
        day = _EPOCH if "SPAN" in found else date(*(found[part] for part in _DATE_PARTS))
    except ValueError as error:
        raise ValueError(f"{path}: the date in the name does not exist: {error}") from error
    return Delivery(found.get("SPAN", (day - _EPOCH).days), found.get("VERSION"), match.groups())


class ListedFile(NamedTuple):
    """A file; `modified_ns` is nanoseconds since 1970, or 0 if the filesystem does not have it."""

    path: str
    size_bytes: int
    modified_ns: int


def list_files(pattern: str) -> list[ListedFile]:
    """Return the files that match a pattern, in name order.

    If only folders match, these are all files below them. Files and folders whose names begin with
    `_` or `.` are left out unless the pattern writes that character.

    Raises:
        NoInputError: A folder cannot be listed, or a file disappears while it is listed.
    """
    return list_files_and_near_misses(pattern)[0]


def list_files_and_near_misses(pattern: str) -> tuple[list[ListedFile], list[str]]:
    """Return the files that match a pattern, and paths that almost do, both in name order.

    A path almost matches if each placeholder corresponds to any text with a digit, such as `day-12`
    for `day-{SPAN:4}`.

    Raises:
        NoInputError: A folder cannot be listed, or a file disappears while it is listed.
    """
    pattern = pattern.rstrip("/")
    files: list[ListedFile] = []
    near_misses: list[str] = []
    for in_folder in (False, True):
        text = f"{pattern}/**" if in_folder else pattern
        regex = _regex(pattern, in_folder=in_folder)
        near = _regex(pattern, near=True, in_folder=in_folder)
        for file in _remote(_PLACEHOLDER.sub("*", text)) if is_remote(text) else _local_files(text):
            if regex.fullmatch(file.path):
                files.append(file)
            elif near.fullmatch(file.path):
                near_misses.append(file.path)
        if files:
            break
    return sorted(files), sorted(near_misses)


def query_of(pattern: str) -> str | None:
    """Return the BigQuery query in `bigquery: SELECT …`; None if the pattern names files."""
    match = _QUERY_PREFIX.match(pattern)
    return None if match is None else pattern[match.end() :].strip()


def show_span(span: int, kind: SpanKind) -> str:
    """Format a span number as a number or as an ISO date."""
    return (_EPOCH + timedelta(days=span)).isoformat() if kind == "date" else str(span)


def reads_as_day(number: int) -> bool:
    """Return whether a number looks like a date, such as 20261120."""
    try:
        datetime.strptime(str(number), "%Y%m%d")
    except ValueError:
        return False
    return len(str(number)) == 8


def read_span(text: str | int, kind: SpanKind) -> int:
    """Parse a span number, or an ISO date, in a setting.

    Raises:
        ValueError: The text is not a span of this kind.
    """
    if kind == "date":
        try:
            return (date.fromisoformat(str(text)) - _EPOCH).days
        except ValueError as error:
            raise ValueError(f"a span must be a date such as 2026-11-20, got {text!r}") from error
    if not re.fullmatch(r"\d+", str(text)):
        raise ValueError(f"a span of {{SPAN}} must be a number, got {text!r}")
    return int(text)


def _local_files(pattern: str) -> Iterator[ListedFile]:
    first, *rest = pattern.split("/")
    return _local(first or "/", rest) if rest else _local("", [first])


def _local(folder: str, segments: Sequence[str]) -> Iterator[ListedFile]:
    segment, *rest = segments
    if "**" in segment:
        for parent, _, names in os.walk(folder):
            yield from (_stat(os.path.join(parent, name)) for name in names)
        return
    names = [segment]
    if _PLACEHOLDER.search(segment) or _GLOB_PART.search(segment):
        regex = _regex(segment, near=True)
        try:
            names = [name for name in os.listdir(folder or ".") if regex.fullmatch(name)]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise NoInputError(f"{folder} cannot be listed: {error}") from error
    for name in names:
        path = os.path.join(folder, name)
        if rest:
            yield from _local(path, rest)
        elif os.path.isfile(path):
            yield _stat(path)


def _stat(path: str) -> ListedFile:
    try:
        state = os.stat(path)
    except OSError as error:
        raise NoInputError(f"{path} disappeared after it was listed: {error}") from error
    return ListedFile(path, state.st_size, state.st_mtime_ns)


def _remote(glob: str) -> Iterator[ListedFile]:
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    try:
        (matched,) = FileSystems.match([glob])
    except (BeamIOError, ValueError) as error:
        raise NoInputError(f"{glob} cannot be listed: {error}") from error
    for entry in matched.metadata_list:
        modified = int((entry.last_updated_in_seconds or 0) * 10**9)
        yield ListedFile(entry.path, entry.size_in_bytes, modified)


@cache
def _regex(text: str, *, near: bool = False, in_folder: bool = False) -> "re.Pattern[str]":
    """Return the regular expression that a whole path, or one segment of it, must match.

    If `near`, each placeholder matches any text with a digit and without a slash. If `in_folder`,
    the text matches a folder, and the path is that of a file below it. A wildcard at the beginning
    of a name does not match `_` or `.`.
    """
    parts: list[str] = []
    seen: set[str] = set()
    index = 0
    while index < len(text):
        if match := _PLACEHOLDER.match(text, index):
            word, width = match.groups()
            digits = f"{{{width or _DATE_PARTS[word]}}}" if width or word in _DATE_PARTS else "+"
            exact = f"(?P={word})" if word in seen else rf"(?P<{word}>[0-9]{digits})"
            parts.append("[^/]*[0-9][^/]*" if near else exact)
            seen.add(word)
        elif match := _GLOB_PART.match(text, index):
            part = match[0]
            inner = part[1:-1].replace("\\", "\\\\")
            inner = f"^{inner[1:]}" if inner[:1] in ("!", "^") else inner
            in_segment = {"**": _SEGMENTS, "*": "[^/]*", "?": "[^/]"}.get(part, f"[{inner}]")
            starts_name = index == 0 or text[index - 1] == "/"
            parts.append(_NOT_HIDDEN * starts_name + in_segment)
        else:
            parts.append(re.escape(text[index]))
        index = match.end() if match else index + 1
    return re.compile("".join(parts) + f"/{_NOT_HIDDEN}{_SEGMENTS}" * in_folder, re.DOTALL)
