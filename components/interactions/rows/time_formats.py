"""Formats of times: conversion of text to ISO 8601, and the plausibility of a range of times."""

import re
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

# Units of numbers, and of text without a pattern of its own.
TIMESTAMP_UNITS = ("s", "ms", "us", "ns", "iso8601", "excel")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EARLIEST = datetime(1990, 1, 1, tzinfo=timezone.utc)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

# One or two digits; without the question marks, exactly two.
_DIGITS = {
    "%m": "0?[1-9]|1[0-2]",
    "%d": "0?[1-9]|[12][0-9]|3[01]",
    "%H": "[01]?[0-9]|2[0-3]",
    "%I": "0?[1-9]|1[0-2]",
    "%M": "[0-5]?[0-9]",
    "%S": "[0-5]?[0-9]",
}
# Each group has the name of its directive.
_DIRECTIVES = {
    "%Y": "(?P<Y>[0-9]{4})",
    "%b": r"(?P<b>[A-Za-z]{3})[A-Za-z]*\.?",
    **{name: f"(?P<{name[1]}>{d})" for name, d in _DIGITS.items()},
    **{f"%0{name[1]}": f"(?P<{name[1]}>{d.replace('?', '')})" for name, d in _DIGITS.items()},
    "%f": "(?P<f>[0-9]+)",
    ".%f": "(?:[.,](?P<f>[0-9]+))?",
    "%p": r"(?P<p>(?i:[ap]\.?m\.?))",
    "%z": "(?P<z>Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})",
    "%a": "[A-Za-z]{3,9}",
}
_KNOWN = " ".join(name for name in _DIRECTIVES if "%0" not in name and "." not in name)
# Digits that follow each other without a character between them need a fixed length.
_ADJACENT = re.compile(r"(?<=%[YmdHIMS])%[mdHIMS]|%[mdHIMS](?=%[YmdHIMSfz])")
_SPACES = "[\u00a0\u202f ]+"
_SPELLINGS = (
    # ISO 8601 without delimiters: 20240501T070000Z.
    (r"^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})", r"\1-\2-\3T\4:\5:\6"),
    (r"(:\d{2}),(\d+)", r"\1.\2"),
    # An offset before the name of a zone: Java's `+02:00[Europe/Berlin]`, Go's `+0000 UTC`.
    (r"(Z|[+-]\d{2}:?\d{2})(?:\[[\w/+-]+\]| [A-Z]{3,5})$", r"\1"),
    (r"(\d) ?(?:UTC|GMT|Z)$", r"\1Z"),
    (r"(:\d{2}(?:\.\d+)?) ([+-]\d{2})", r"\1\2"),
)


def check_timestamp_unit(unit: str) -> str:
    """Return the unit if times can be read with it.

    Raises:
        ValueError: It is not a name of a unit, or a pattern that does not determine a time.
    """
    if unit in TIMESTAMP_UNITS:
        return unit
    if "%" not in unit:
        raise ValueError(
            f"must be {', '.join(TIMESTAMP_UNITS)}, or a pattern such as %d.%m.%Y %H:%M, got "
            f"{unit!r}"
        )
    found = _directives(unit)
    unknown = [name for name in found if f"%{name}" not in _KNOWN.split()]
    problem = None
    if "y" in unknown:
        problem = "years must have four digits, because %y does not tell the century"
    elif unknown:
        problem = f"%{unknown[0]} is unknown; known are {_KNOWN}"
    elif len(set(found)) < len(found):
        problem = "each directive must occur once"
    elif not {"Y", "d"} <= set(found) or ("m" in found) == ("b" in found):
        problem = "it must have %Y, %d, and either %m or %b"
    elif ("I" in found) != ("p" in found) or {"I", "H"} <= set(found):
        problem = "it must have %H, or %I with %p"
    if problem is not None:
        raise ValueError(f"the pattern {unit!r} does not determine a time: {problem}")
    return unit


def respelt_as_iso_8601(words: Any) -> Any:
    """Respell times of BigQuery, Java, Go and loggers as ISO 8601; keep other words."""
    for pattern, replacement in _SPELLINGS:
        words = pc.replace_substring_regex(words, pattern, replacement)
    return words


def patterned_as_iso_8601(words: Any, pattern: str) -> Any:
    """Convert times that have a pattern to ISO 8601; other words become null."""
    # Numbers in a column with empty values are written by pandas as 20240501.0.
    words = pc.replace_substring_regex(words, r"^(\d+)\.0+$", r"\1")
    words = pc.replace_substring_regex(words, _SPACES, " ")
    found = pc.extract_regex(words, _regex(pattern))
    names = [field.name for field in found.type]

    def part(name: str, absent: str = "00", width: int = 2) -> Any:
        if name not in names:
            return absent
        return pc.utf8_lpad(pc.struct_field(found, [names.index(name)]), width, "0")

    month, hour = part("m"), part("H")
    if "b" in names:
        number = pc.index_in(pc.utf8_lower(part("b")), value_set=pa.array(MONTHS))
        month = _two_digits(pc.add(number, 1))
    if "I" in names:
        halves = pa.array(["12", *(f"{half:02}" for half in range(1, 12))])
        is_afternoon = pc.starts_with(pc.utf8_lower(part("p")), "p")
        number = pc.index_in(part("I"), value_set=halves)
        hour = _two_digits(pc.add(number, pc.if_else(is_afternoon, 12, 0)))
    zone = part("z", "", 0)
    if "z" in names:
        zone = pc.replace_substring_regex(zone, "^(UTC|GMT)$", "Z")
    date = pc.binary_join_element_wise(part("Y"), month, part("d"), "-")
    clock = pc.binary_join_element_wise(hour, part("M"), part("S"), ":")
    fraction = part("f", "0", 1)
    return pc.binary_join_element_wise(date, "T", clock, ".", fraction, zone, "")


def show_time(micros: int) -> str:
    """Format microseconds since 1970 as an ISO 8601 time in UTC."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat()


def time_warnings(first_us: int, last_us: int) -> list[str]:
    """Return a warning if the times of events, in microseconds, are implausible."""
    first, last = (_EPOCH + timedelta(microseconds=micros) for micros in (first_us, last_us))
    if first == last:
        problem = "all are at one instant"
    elif first < _EARLIEST:
        problem = "some are before 1990"
    elif last > datetime.now(timezone.utc) + timedelta(days=1):
        problem = "some are in the future"
    else:
        return []
    return [
        f"the times of the events are from {show_time(first_us)} to {show_time(last_us)}: "
        f"{problem}. Check `events.timestamp` and `events.timestamp_unit`"
    ]


def _directives(pattern: str) -> list[str]:
    return cast("list[str]", re.findall(r"%(.?)", pattern))


def _regex(pattern: str) -> str:
    marked = _ADJACENT.sub(lambda found: f"%0{found[0][1]}", re.sub(_SPACES, " ", pattern))
    regex = ""
    # The directives are at odd positions, and the text between them at even ones.
    for position, part in enumerate(re.split(r"(\.%f|%0?.)", marked)):
        if position % 2 == 0:
            regex += re.escape(part)
        else:
            regex += _DIRECTIVES[part]
    return f"^{regex}$"


def _two_digits(numbers: Any) -> Any:
    return pc.utf8_lpad(numbers.cast(pa.string()), 2, "0")
