"""Patterns of input files, such as `clicks/{YYYY}-{MM}-{DD}/v{VERSION}/*.csv`.

A span is a numbered portion of the data. Its number is `{SPAN}`, or for a date, the number of days
since 1970. `{VERSION}` numbers the deliveries of a span. These are the terms of TFX.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from models.settings import Settings

_EPOCH = date(1970, 1, 1)
_DATE_PARTS = {"YYYY": 4, "MM": 2, "DD": 2}
_PLACEHOLDERS = {"SPAN", "VERSION", *_DATE_PARTS}
_PLACEHOLDER = re.compile(r"\{([A-Z]+)(?::([1-9]\d?))?\}")
# The wildcards of a glob; `**` crosses folders, `*` does not.
_GLOB_PART = re.compile(r"\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]")
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
    """The spans that a run reads.

    Attributes:
        kind: Whether spans are numbers or dates.
        interactions: The window, oldest span first; empty if the pattern has no spans.
        candidates: The snapshot of the catalogue; None if the pattern has no spans.
        queries: The snapshot of the queries; None if the pattern has no spans.
        missing: Numbers of the spans in the window that have no files.
        if_empty: Action if a span of the window has no valid event.
    """

    kind: SpanKind
    interactions: tuple[SpanFiles, ...] = ()
    candidates: SpanFiles | None = None
    queries: SpanFiles | None = None
    missing: tuple[int, ...] = ()
    if_empty: Literal["stop", "warn"] = "stop"

    def of(self, source: Literal["interactions", "candidates", "queries"]) -> tuple[SpanFiles, ...]:
        """Return the spans of a source; empty if its pattern has no spans."""
        if source == "interactions":
            return self.interactions
        snapshot = self.candidates if source == "candidates" else self.queries
        return () if snapshot is None else (snapshot,)

    def show(self, span: int) -> str:
        """Format a span number for people; see `show_span`."""
        return show_span(span, self.kind)


@dataclass(frozen=True)
class Delivery:
    """The span and version that a path names.

    Attributes:
        span: Number of the span; for a date, days since 1970.
        version: Number of the version; None if the pattern has no `{VERSION}`.
        spelling: The digits of each placeholder in the path: 7 and 07 are two spellings of a span.
    """

    span: int
    version: int | None
    spelling: tuple[str, ...]


@dataclass(frozen=True)
class SpanPattern:
    """A glob with placeholders for spans; `kind` is None if it has none."""

    text: str
    kind: SpanKind | None
    has_version: bool

    @classmethod
    def parse(cls, text: str) -> "SpanPattern":
        """Parse a pattern.

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
            return cls(text, None, False)
        for word, width in found:
            if word not in _PLACEHOLDERS:
                raise ValueError(
                    f"{text}: unknown placeholder {{{word}}}; use {{SPAN}}, {{VERSION}}, {{YYYY}}, "
                    "{MM} or {DD}"
                )
            if width and word in _DATE_PARTS:
                raise ValueError(f"{text}: {{{word}}} has a fixed width")
        parts = words & _DATE_PARTS.keys()
        if parts and len(parts) < len(_DATE_PARTS):
            raise ValueError(f"{text}: a date needs {{YYYY}}, {{MM}} and {{DD}}")
        if parts and "SPAN" in words:
            raise ValueError(f"{text}: a span is a number or a date, not both")
        if "VERSION" in words and not (parts or "SPAN" in words):
            raise ValueError(f"{text}: {{VERSION}} needs a span, such as {{SPAN}}")
        if re.search(r"\{(SPAN|VERSION)\}(\{|\d)|(\d|\})\{(SPAN|VERSION)\}", text):
            raise ValueError(
                f"{text}: a number of any length next to another one is ambiguous; give widths, "
                "such as {SPAN:4}"
            )
        kind: SpanKind | None = "date" if parts else "number" if "SPAN" in words else None
        return cls(text, kind, "VERSION" in words)

    @property
    def glob(self) -> str:
        """A glob for filesystems, which also matches some paths that `regex` does not match."""
        return _PLACEHOLDER.sub("*", self.text)

    @property
    def regex(self) -> "re.Pattern[str]":
        """The regular expression that a whole path must match."""
        return re.compile("".join(_regex_parts(self.text)), re.DOTALL)

    @property
    def near_regex(self) -> "re.Pattern[str]":
        """Like `regex`, but each placeholder matches any text with a digit and without a slash."""
        return near_regex(self.text)

    def delivery(self, path: str) -> Delivery | None:
        """Return the span and version that a path names; None if it does not match.

        Raises:
            ValueError: The path matches, but its date does not exist.
        """
        match = self.regex.fullmatch(path)
        if match is None or self.kind is None:
            return None
        found = match.groupdict()
        version = int(found["VERSION"]) if self.has_version else None
        if self.kind == "number":
            span = int(found["SPAN"])
        else:
            try:
                day = date(*(int(found[part]) for part in _DATE_PARTS))
            except ValueError as error:
                raise ValueError(f"{path}: the date in the name does not exist: {error}") from error
            span = span_of(day)
        return Delivery(span, version, tuple(found.values()))


def query_of(pattern: str) -> str | None:
    """Return the BigQuery query in `bigquery: SELECT …`; None if the pattern names files."""
    match = _QUERY_PREFIX.match(pattern)
    return None if match is None else pattern[match.end() :].strip()


def has_spans(pattern: str) -> bool:
    """Return whether the files of a pattern are divided into spans."""
    return SpanPattern.parse(pattern).kind is not None


def span_of(day: date) -> int:
    """Return the span number of a day: the number of days since 1970."""
    return (day - _EPOCH).days


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
            # YAML parsers convert a date to a time at midnight.
            return span_of(date.fromisoformat(str(text).removesuffix("T00:00:00")))
        except ValueError as error:
            raise ValueError(f"a span must be a date such as 2026-11-20, got {text!r}") from error
    if not re.fullmatch(r"\d+", str(text)):
        raise ValueError(f"a span of {{SPAN}} must be a number, got {text!r}")
    return int(text)


def near_regex(pattern: str) -> "re.Pattern[str]":
    """Return `SpanPattern.near_regex` for a pattern, or for one segment of its path."""
    return re.compile("".join(_regex_parts(pattern, near=True)), re.DOTALL)


def is_fixed(segment: str) -> bool:
    """Return whether a segment of a pattern matches only itself."""
    return not (_PLACEHOLDER.search(segment) or _GLOB_PART.search(segment))


def _regex_parts(text: str, *, near: bool = False) -> Iterator[str]:
    seen: set[str] = set()
    index = 0
    while index < len(text):
        if match := _PLACEHOLDER.match(text, index):
            word, width = match.groups()
            digits = f"{{{width or _DATE_PARTS[word]}}}" if width or word in _DATE_PARTS else "+"
            if near:
                yield "[^/]*[0-9][^/]*"
            else:
                yield f"(?P={word})" if word in seen else rf"(?P<{word}>[0-9]{digits})"
            seen.add(word)
        elif match := _GLOB_PART.match(text, index):
            yield _glob_regex(match[0])
        else:
            yield re.escape(text[index])
        index = match.end() if match else index + 1


def _glob_regex(part: str) -> str:
    if part == "**":
        return ".*"
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    inner = part[1:-1].replace("\\", "\\\\")
    is_negated = inner[:1] in ("!", "^")
    return f"[^{inner[1:]}]" if is_negated else f"[{inner}]"
