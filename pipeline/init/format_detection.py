"""Detection of the formats in which a column writes times, numbers and lists.

Each format is tested with the conversion of ingestion, so ingestion reads what is found here.
"""

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from components.interactions.rows.missing_words import MISSING_WORDS
from components.interactions.rows.text_formats import parsed_lists, plain_numbers
from components.interactions.rows.time_formats import (
    MONTHS,
    WEEKDAYS,
    check_timestamp_unit,
    show_time,
)
from components.interactions.rows.times import time
from components.interactions.rows.values import text
from models.features.spec import ListFormat
from pipeline.errors import InitError

# Codes such as 05201 are not numbers, because their leading zeros are significant.
NUMBER = r"^\s*[+-]?(0|[1-9]\d*|0?\.\d+|(0|[1-9]\d*)\.\d*)([eE][+-]?\d+)?\s*$"
_UNIT = (
    r"[A-Z]{0,3}\p{Sc}|%|AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HUF|INR|JPY|MXN|NOK|NZD|PLN|SEK|TRY"
    r"|USD|ZAR|kr\.?|zł|Fr\."
)
_FORMATTED = (
    rf"^\s*[+-]?({_UNIT})?\s*[+-]?"
    r"((?:0|[1-9]\d*|[1-9]\d{0,2}(?:[.,'’ \x{a0}\x{202f}\x{2009}]\d{3})+)(?:[.,]\d+)?)"
    rf"\s*({_UNIT})?\s*$"
)
# Numbers in which all points may be thousands separators; three decimals in all rows are plain.
_DOT_OR_THOUSANDS = r"^\s*[+-]?(\d{1,3}|[1-9]\d{0,2}\.\d{3})\s*$"
# Numbers that no declared format reads: (1,050.00), 5-, \u22125, 1,23,000 and Rs. 5.
_OTHER_NUMBER = (
    rf"^\s*({_UNIT}|Rs\.?)?\s*[(+\x{{2212}}-]?\s*({_UNIT}|Rs\.?)?\s*"
    r"(0|[1-9]\d*|[1-9]\d{0,2}([.,]\d{3})+|[1-9]\d?(,\d{2})+,\d{3})([.,]\d+)?"
    rf"\s*({_UNIT})?[)\x{{2212}}-]?\s*$"
)
_NUMBER_FORMATS = (
    "1234.5", "1234,5", "1,234.5", "1.234,5", "1 234,5", "1 234.5", "1'234.5", "1’234.5",
)  # fmt: skip
_BRACKETED = r"(?s)^\s*(\[.*\]|\{.*\}|\(\s*['\x22].*\))\s*$"

_LIST_SHARE = 0.8
# Times of other formats become bad rows.
_MIN_SHARE = 0.95
_TESTED_ROWS = 1_000
# 1e11 is the year 5138 in seconds and 1973 in milliseconds, so times after 1973 are unambiguous.
_LIMITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
_COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}
_COMPACT_NUMBER = r"^(19[5-9]|20\d)\d(0[1-9]|1[0-2])[0-3]\d*(\.0+)?$"
_EXCEL_DAYS = (32_874, 73_051)  # 1990 to 2099
_EXCEL_WITH_COMMA = r"^\s*(\d{5}),(\d+)\s*$"
_CLOCK = re.compile(
    r"(?<!\d)(\d{1,2}):\d{2}(:\d{2})?([.,]\d+)?(\s*)([ap]\.?m\.?)?(\s*)(Z|UTC|GMT|[+-]\d{2}:?\d{2}\b)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FoundTimes:
    """The `events.timestamp_unit` of a column, and its times, which are null if unreadable."""

    unit: str
    times_us: pl.Series

    @property
    def range(self) -> str:
        """The first and the last time."""
        bounds = self.times_us.drop_nulls().sort()[[0, -1]]
        first, last = (show_time(us).replace("+00:00", "") for us in bounds)
        return f"{first} to {last} UTC"


@dataclass(frozen=True)
class FoundValues:
    """Numbers, or items of lists, that are text in a format; None is plain numbers.

    `problem` is a reason why the text cannot be read in a single way, or empty.
    """

    values: pl.Series
    format: str | None = None
    problem: str = ""


def find_times(column: pl.Series, unit: str | None = None) -> FoundTimes:
    """Return the unit of a time column, which is detected unless it is given, and its range.

    Raises:
        InitError: The values are not times, or can be read in several ways.
    """
    if unit is not None:
        try:
            check_timestamp_unit(unit)
        except ValueError as error:
            raise InitError(f"--timestamp-unit: {error}") from None
    else:
        unit = "iso8601" if column.dtype.is_temporal() else _detected_unit(column)
    values, good = _times(column, unit)
    if not good.any():
        raise InitError(
            f"--timestamp {column.name} must hold times of the unit {unit!r}, got "
            f"{column.drop_nulls().first()!r}"
        )
    return FoundTimes(unit, pl.Series(values).set(pl.Series(~good), None))


def find_numbers(values: pl.Series) -> FoundValues | None:
    """Return the numbers that strings have in a single format, or None if there is none."""
    is_plain = all_match(values, NUMBER)
    if is_plain and (all_match(values, r"\.") or not all_match(values, _DOT_OR_THOUSANDS)):
        return FoundValues(_numbers(values, None))
    formats: list[str | None] = [None] if is_plain else []
    if all_match(values, _FORMATTED):
        groups = values.str.extract_groups(_FORMATTED).struct.unnest()
        units = groups.select("1", "3").unique()
        if len(units) > 1:
            shown = " and ".join(repr(value) for value in values.unique().sort().head(2))
            return FoundValues(values, problem=f"numbers with different units, such as {shown}")
        before, after = (unit or "" for unit in units.row(0))
        before += " " if before[-1:].isalpha() else ""
        after = f" {after}" if after not in ("", "%") else after
        formats += [f"{before}{layout}{after}" for layout in _NUMBER_FORMATS]
    read: dict[str | None, pl.Series] = {}
    for rows in (values.head(_TESTED_ROWS), values):
        tried = {found: _numbers(rows, found) for found in formats}
        read = {found: n for found, n in tried.items() if not n.null_count()}
        formats = list(read)
    if not read:
        return None
    (number_format, numbers), *others = read.items()
    other = next((found for _, found in others if not found.equals(numbers)), None)
    if other is None:
        return FoundValues(numbers, number_format)
    row = int((numbers != other).cast(pl.Int8).arg_max() or 0)
    shown = f"{values[row]!r} can be {numbers[row]:g} or {other[row]:g}"
    problem = f"{shown}; declare the feature with its `number_format`"
    return FoundValues(values, problem=problem)


def find_lists(values: pl.Series) -> FoundValues | None:
    """Return the items of lists that are text, or None if most of the strings are not lists."""
    if (values.str.contains(_BRACKETED).cast(pl.Int8).sum() or 0) <= _LIST_SHARE * values.len():
        return None
    formats: tuple[ListFormat, ...] = ("json", "python")
    for list_format in formats:
        lists = parsed_lists(_strings(values.str.strip_chars()), list_format)
        if not lists.null_count:
            items = pl.Series(pl.from_arrow(lists.flatten()), dtype=pl.String)
            return FoundValues(items, list_format)
    other = values[lists.is_null().index(True).as_py()][:40]
    problem = f"lists of which some are neither JSON nor Python lists of values, such as {other!r}"
    return FoundValues(values, problem=problem)


def are_numbers(values: pl.Series) -> pl.Series:
    """Return whether each string is a number, also in a format that ingestion does not read."""
    return values.str.contains(f"{NUMBER}|{_FORMATTED}|{_OTHER_NUMBER}")


def looks_like_times(values: pl.Series) -> bool:
    """Return whether strings are times in a format that ingestion reads."""
    return bool(_units(values))


def all_match(values: pl.Series, pattern: str) -> bool:
    """Return whether there are strings, and all match a pattern."""
    return values.len() > 0 and bool(values.str.contains(pattern).all())


def _detected_unit(column: pl.Series) -> str:
    values = column.cast(pl.String).drop_nulls()
    # Rows without a time are bad rows, which ingestion reports.
    values = values.filter(~values.str.strip_chars().is_in(["", *MISSING_WORDS]))
    units = _units(values)
    if len(units) == 1:
        return units[0]
    shapes = values.str.replace_all(r"\d", "0")
    examples = [*values.filter(shapes.is_first_distinct()), *values.unique(maintain_order=True)]
    shown = ", ".join(repr(value[:40]) for value in dict.fromkeys(examples[:3])) or "no value"
    if units:
        raise InitError(
            f"--timestamp {column.name} must determine day and month, but its values fit "
            f"{' and '.join(repr(unit) for unit in units)}: {shown}. Add --timestamp-unit with the "
            "right one"
        )
    raise InitError(
        f"--timestamp {column.name} must hold epochs, ISO 8601 times such as 2024-05-01T12:00:00, "
        f"Excel's numbers, or dates with a year of four digits; got {shown}"
    )


def _units(values: pl.Series) -> list[str]:
    """Return the units that read all values or, if there is none, almost all."""
    values = values.str.replace(_EXCEL_WITH_COMMA, "$1.$2")
    first = values.head(_TESTED_ROWS)
    numbers = first.filter(first.str.contains(NUMBER))
    if first.is_empty():
        units = []
    elif len(numbers) >= _MIN_SHARE * len(first):
        units = [_unit_of_numbers(numbers)]
    else:
        # The longest value has all parts that others may lack, such as a fraction.
        units = ["iso8601", *_patterns(first[int(first.str.len_chars().arg_max() or 0)])]
    shares: dict[str, float] = {}
    for rows in (first, values):
        shares = {unit: _times(rows, unit)[1].mean() for unit in units}
        units = [unit for unit, share in shares.items() if share >= _MIN_SHARE]
    if "iso8601" in units:
        return ["iso8601"]
    return [unit for unit in units if shares[unit] == 1] or units


def _unit_of_numbers(values: pl.Series) -> str:
    """Return the unit of numbers, which is inferred from their digits and magnitude."""
    digits = values.str.strip_chars()
    lengths = digits.str.replace(r"\.0+$", "").str.len_chars().unique()
    if len(lengths) == 1 and all_match(digits, _COMPACT_NUMBER):
        compact = _COMPACT.get(lengths[0])
        if compact is not None and _times(values, compact)[1].all():
            return compact
    numbers = digits.str.strip_prefix("+").cast(pl.Float64)
    if numbers.is_between(*_EXCEL_DAYS).all():
        return "excel"
    middle = abs(float(numbers.quantile(0.5, "nearest") or 0))
    return next((unit for limit, unit in _LIMITS if middle < limit), "ns")


def _patterns(value: str) -> list[str]:
    """Return the patterns that a time in text can have: two if day and month are ambiguous."""
    pattern = _CLOCK.sub(_clock_pattern, " ".join(value.split()))
    pattern = re.sub(r"(?<!%)[A-Za-z]{3,9}", _name_pattern, pattern)
    pattern = re.sub(r"(?<!\d)\d{4}(?!\d)", "%Y", pattern)
    orders = ["d"] if "%b" in pattern else ["md"] if re.search(r"%Y.*\d", pattern) else ["dm", "md"]
    # Names of zones and other words would be ignored.
    has_words = re.search(r"[{}]|(?<!%)[A-Za-z]{2,}", pattern)
    if has_words or len(re.findall(r"\d+", pattern)) != len(orders[0]):
        return []
    template, patterns = re.sub(r"\d+", "{}", pattern), []
    for order in orders:
        with contextlib.suppress(ValueError):
            patterns.append(check_timestamp_unit(template.format(*(f"%{part}" for part in order))))
    return patterns


def _clock_pattern(found: re.Match[str]) -> str:
    _, second, fraction, space, noon, gap, zone = found.groups()
    clock = ("%I" if noon else "%H") + ":%M" + (":%S" if second else "")
    clock += (".%f" if fraction else "") + (f"{space}%p" if noon else "")
    return clock + ("" if noon else space) + gap + ("%z" if zone else "")


def _name_pattern(found: re.Match[str]) -> str:
    name = found[0][:3].lower()
    return "%b" if name in MONTHS else "%a" if name in WEEKDAYS else found[0]


def _times(values: pl.Series, unit: str) -> tuple[Any, Any]:
    """Return the times in microseconds, and whether each of them could be read."""
    found = time(values.to_arrow(compat_level=pl.CompatLevel.oldest()), unit)
    return np.asarray(found.array), ~np.any([mask for _, mask in found.faults], axis=0)


def _numbers(values: pl.Series, number_format: str | None) -> pl.Series:
    """Return the numbers in a format; values that are not numbers in it become null."""
    words = values.str.strip_chars().str.strip_prefix("+")
    if number_format is not None:
        words = pl.Series(pl.from_arrow(plain_numbers(_strings(words), number_format)))
    return words.cast(pl.Float64, strict=False)


def _strings(values: pl.Series) -> Any:
    return text(values.to_arrow(compat_level=pl.CompatLevel.oldest())).array
