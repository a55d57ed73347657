"""Patterns that are no files but a BigQuery query: `bigquery: SELECT …`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from models.settings import Settings

_PREFIX = re.compile(r"bigquery:(?!//)\s*", re.IGNORECASE)


def query_of(pattern: str) -> str | None:
    """Returns the query in a pattern of `data`; None: it names files."""
    match = _PREFIX.match(pattern)
    return None if match is None else pattern[match.end() :].strip()


_EPOCH = date(1970, 1, 1)

_DATE_PARTS = {"YYYY": 4, "MM": 2, "DD": 2}

_PLACEHOLDER = re.compile(r"\{([A-Z]+)(?::([1-9]\d?))?\}")

# What a glob may hold; `**` crosses folders, `*` does not.
_GLOB_PART = re.compile(r"\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]")

SpanKind = Literal["number", "date"]


@dataclass(frozen=True)
class Delivery:
    """Which delivery a file belongs to.

    Attributes:
        span: Its number; of a date, days since 1970.
        version: None where the pattern has no `{VERSION}`.
        spelling: The digits as the path has them: 7 and 07 are the same span, spelled twice.
    """

    span: int
    version: int | None
    spelling: tuple[str, ...]


@dataclass(frozen=True)
class SpanPattern:
    """A glob with placeholders.

    Attributes:
        text: As configured.
        kind: How spans are written; None: the pattern has no placeholder.
        has_version: Whether deliveries of a span are told apart.
    """

    text: str
    kind: SpanKind | None
    has_version: bool

    @classmethod
    def parse(cls, text: str) -> "SpanPattern":
        """Reads a pattern.

        Raises:
            ValueError: A placeholder is unknown, or those that are there do not name a span.
        """
        words = [match[1] for match in _PLACEHOLDER.finditer(text)]
        if query_of(text) is not None:
            if {"SPAN", "VERSION", *_DATE_PARTS}.intersection(words):
                raise ValueError(
                    "a query has no spans; let it choose by itself, such as WHERE day > "
                    "DATE_SUB(CURRENT_DATE(), INTERVAL 28 DAY)"
                )
            return cls(text, None, False)
        for match in _PLACEHOLDER.finditer(text):
            word, width = match.groups()
            if word not in {"SPAN", "VERSION", *_DATE_PARTS}:
                raise ValueError(
                    f"{text}: unknown placeholder {{{word}}}; there are {{SPAN}}, {{VERSION}}, "
                    "{YYYY}, {MM} and {DD}"
                )
            if width and word in _DATE_PARTS:
                raise ValueError(f"{text}: {{{word}}} has a width of its own")
        parts = [word for word in _DATE_PARTS if word in words]
        if parts and len(parts) < len(_DATE_PARTS):
            raise ValueError(f"{text}: a date needs {{YYYY}}, {{MM}} and {{DD}}")
        if parts and "SPAN" in words:
            raise ValueError(f"{text}: a span is a number or a date, not both")
        if "VERSION" in words and not (parts or "SPAN" in words):
            raise ValueError(f"{text}: {{VERSION}} needs a span to be a version of")
        if re.search(r"\{(SPAN|VERSION)\}(\{|\d)", text) or re.search(
            r"(\d|\})\{(SPAN|VERSION)\}", text
        ):
            raise ValueError(
                f"{text}: nothing tells where a number of any length begins or ends beside "
                "another; give widths, such as {SPAN:4}"
            )
        kind: SpanKind | None = "date" if parts else "number" if "SPAN" in words else None
        return cls(text, kind, "VERSION" in words)

    @property
    def glob(self) -> str:
        """The pattern for a filesystem, which finds more than `delivery` accepts."""
        return _PLACEHOLDER.sub("*", self.text)

    @property
    def regex(self) -> "re.Pattern[str]":
        """What a whole path must match."""
        return re.compile("".join(_regex_parts(self.text)), re.DOTALL)

    @property
    def near_regex(self) -> "re.Pattern[str]":
        """What a path matches whose name has digits at the places, but may have them otherwise."""
        return re.compile("".join(_regex_parts(self.text, near=True)), re.DOTALL)

    def delivery(self, path: str) -> Delivery | None:
        """Returns which delivery a path belongs to, None where it does not match.

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
                raise ValueError(f"{path}: its name holds no date: {error}") from error
            span = span_of(day)
        return Delivery(span, version, tuple(found.values()))


def span_of(day: date) -> int:
    """Returns the number of a day: days since 1970."""
    return (day - _EPOCH).days


def show_span(span: int, kind: SpanKind) -> str:
    """Returns a span as people write it."""
    return (_EPOCH + timedelta(days=span)).isoformat() if kind == "date" else str(span)


def reads_as_day(number: int) -> bool:
    """Whether a number is written as a day is, such as 20261120."""
    try:
        datetime.strptime(str(number), "%Y%m%d")
    except ValueError:
        return False
    return len(str(number)) == 8


def read_span(text: str | int, kind: SpanKind) -> int:
    """Returns the number of a span that a person wrote.

    Raises:
        ValueError: It is not written as this kind is.
    """
    if kind == "date":
        try:
            # YAML reads a day, and hands on a moment.
            return span_of(date.fromisoformat(str(text).removesuffix("T00:00:00")))
        except ValueError as error:
            raise ValueError(f"a span of dates is written as 2026-11-20, got {text!r}") from error
    if not re.fullmatch(r"\d+", str(text)):
        raise ValueError(f"a span of {{SPAN}} is a number, got {text!r}")
    return int(text)


def segment_regex(segment: str) -> "re.Pattern[str]":
    """Returns what the name of a file or folder matches at one place, see `near_regex`."""
    return re.compile("".join(_regex_parts(segment, near=True)), re.DOTALL)


def is_fixed(segment: str) -> bool:
    """Whether a part of a pattern matches nothing but itself."""
    return not (_PLACEHOLDER.search(segment) or _GLOB_PART.search(segment))


def _regex_parts(text: str, *, near: bool = False) -> Iterator[str]:
    seen: set[str] = set()
    place = 0
    while place < len(text):
        if match := _PLACEHOLDER.match(text, place):
            word, width = match.groups()
            digits = f"{{{width or _DATE_PARTS[word]}}}" if width or word in _DATE_PARTS else "+"
            if near:
                yield "[^/]*[0-9][^/]*"
            else:
                yield f"(?P={word})" if word in seen else rf"(?P<{word}>[0-9]{digits})"
            seen.add(word)
        elif match := _GLOB_PART.match(text, place):
            yield _glob_regex(match[0])
        else:
            yield re.escape(text[place])
        place = match.end() if match else place + 1


def _glob_regex(part: str) -> str:
    if part == "**":
        return ".*"
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    inner = part[1:-1].replace("\\", "\\\\")
    negated = inner[:1] in ("!", "^")
    return f"[^{inner[1:]}]" if negated else f"[{inner}]"


class InputFile(Settings):
    """A file of a span.

    Attributes:
        path: Where it is.
        size_bytes: As stored.
    """

    path: str
    size_bytes: int


class SpanFiles(Settings):
    """The files of one span in the version that counts.

    Attributes:
        span: Its number; of a date, days since 1970.
        version: The highest; None where versions are not told apart.
        files: In name order.
    """

    span: int
    version: int | None
    files: tuple[InputFile, ...]


class ChosenSpans(Settings):
    """The spans that a run reads, chosen.

    Attributes:
        kind: How people write them.
        interactions: The window, oldest first; empty where its pattern has no spans.
        candidates: The snapshot of the catalogue; None: it has no spans.
        queries: The snapshot of the queries.
        missing: Numbers of the spans that the window lacks.
        if_empty: What a span of the window without a good event does, which is missing too.
    """

    kind: SpanKind
    interactions: tuple[SpanFiles, ...] = ()
    candidates: SpanFiles | None = None
    queries: SpanFiles | None = None
    missing: tuple[int, ...] = ()
    if_empty: Literal["stop", "warn"] = "stop"

    def of(self, source: Literal["interactions", "candidates", "queries"]) -> tuple[SpanFiles, ...]:
        """Returns what a source reads, empty where it has no spans."""
        if source == "interactions":
            return self.interactions
        snapshot = self.candidates if source == "candidates" else self.queries
        return () if snapshot is None else (snapshot,)

    def show(self, span: int) -> str:
        """Returns a span as people write it."""
        return show_span(span, self.kind)
