"""Statistics of the values of one column, and detection of times."""

import contextlib
import re
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from pipeline.errors import InitError

Content = Literal["number", "boolean", "time", "list", "string", "other"]
TimestampUnit = Literal["s", "ms", "us", "ns", "iso8601"]

# Codes such as 05201 are not numbers, because their leading zeros are significant.
NUMBER = r"^\s*[+-]?(0|[1-9]\d*|0?\.\d+|(0|[1-9]\d*)\.\d*)([eE][+-]?\d+)?\s*$"
_DATE = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"
# 1e11 is the year 5138 in seconds and 1973 in milliseconds, so times after 1973 are unambiguous.
_LIMITS: tuple[tuple[float, TimestampUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
_TIME_NAME = re.compile(
    r"(?i)^(event_?|rating_?|click_?)?(timestamp|time|ts|date|datetime|unix_?time|epoch)(_?(s|ms|us|ns))?$"
    r"|^(created|updated|occurred|clicked|viewed|rated|event)_?(at|on|time|date|ts|timestamp)$"
)


@dataclass(frozen=True)
class ColumnProfile:
    """Statistics of a column; means and shares are over the rows that have a value."""

    name: str
    content: Content
    num_present: int  # rows with a value
    values: pl.Series  # non-empty values as strings; lists are flattened
    # The finite numbers; empty if the values are not numbers.
    numbers: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Float64))

    @property
    def num_distinct(self) -> int:
        """The number of distinct values; items are counted in a column of lists."""
        return self.values.n_unique()


def profile(column: pl.Series) -> ColumnProfile:
    """Return the statistics of a column."""
    dtype = column.dtype
    is_list = isinstance(dtype, pl.List | pl.Array)
    items = column.drop_nulls()
    num_present = items.len()
    if is_list:
        items = items.explode().drop_nulls()
    if items.dtype.is_nested() or items.dtype in (pl.Binary, pl.Object):
        return ColumnProfile(column.name, "other", num_present, items)
    values = items.cast(pl.String)
    if is_list:
        return ColumnProfile(column.name, "list", num_present, values)
    values = values.filter(values != "")
    if dtype.is_numeric() or (dtype == pl.String and _all_match(values, NUMBER)):
        numbers = values.str.strip_chars().str.strip_prefix("+").cast(pl.Float64)
        numbers = numbers.filter(numbers.is_finite())
        return ColumnProfile(column.name, "number", values.len(), values, numbers)
    content: Content = "string"
    if dtype == pl.Boolean:
        content = "boolean"
    elif dtype.is_temporal() or (dtype == pl.String and _all_match(values, _DATE)):
        content = "time"
    return ColumnProfile(column.name, content, values.len(), values)


def timestamp_unit(column: pl.Series) -> TimestampUnit:
    """Return the unit of a time column, which is inferred from the magnitude of its values.

    Raises:
        InitError: The values are not times.
    """
    found = profile(column)
    if found.content == "time":
        return "iso8601"
    if not found.numbers.is_empty():
        middle = abs(float(found.numbers.quantile(0.5, "nearest") or 0))
        return next((unit for limit, unit in _LIMITS if middle < limit), "ns")
    shown = repr(found.values[0][:40]) if len(found.values) else "no value"
    raise InitError(
        f"--timestamp {column.name} must hold epochs, or ISO 8601 times such as "
        f"2024-05-01T12:00:00; got {shown}"
    )


def likely_time_column(table: pl.DataFrame) -> str | None:
    """Return a column whose name and values look like timestamps, or None."""
    for column in table.iter_columns():
        if _TIME_NAME.search(column.name):
            with contextlib.suppress(InitError):
                timestamp_unit(column)
                return column.name
    return None


def _all_match(values: pl.Series, pattern: str) -> bool:
    return values.len() > 0 and bool(values.str.contains(pattern).all())
