"""Reads the unit of a timestamp column off its values, and finds such a column."""

import re
from collections.abc import Sequence
from typing import Literal

import polars as pl

from pipeline.errors import InitError
from pipeline.init.column_profile import profile

TimestampUnit = Literal["s", "ms", "us", "ns", "iso8601"]

# The year 5138 in seconds is 1973 in milliseconds, and so on: no epoch is in doubt.
_LIMITS: tuple[tuple[float, TimestampUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
_TIME_NAME = re.compile(
    r"(?i)^(event_?|rating_?|click_?)?(timestamp|time|ts|date|datetime|unix_?time|epoch)(_?(s|ms|us|ns))?$"
    r"|^(created|updated|occurred|clicked|viewed|rated|event)_?(at|on|time|date|ts|timestamp)$"
)


def timestamp_unit(column: pl.Series, option: str = "--timestamp") -> TimestampUnit:
    """Returns the unit by the size of the values.

    Raises:
        InitError: They are no times.
    """
    found = profile(column)
    if found.content == "moment":
        return "iso8601"
    if found.content == "number" and found.numbers is not None and not found.numbers.is_empty():
        middle = abs(float(found.numbers.quantile(0.5, "nearest") or 0))
        return next((unit for limit, unit in _LIMITS if middle < limit), "ns")
    shown = repr(found.values[0][:40]) if found.num_present else "no value"
    raise InitError(
        f"{option} {column.name}: must hold epochs or ISO 8601 times such as 2024-05-01T12:00:00, "
        f"got {shown}"
    )


def likely_time_column(table: pl.DataFrame, used: Sequence[str]) -> str | None:
    """Returns a column that is named like a time and holds times; None: there is none."""
    for name in table.columns:
        if name in used or not _TIME_NAME.search(name):
            continue
        try:
            timestamp_unit(table[name])
        except InitError:
            continue
        return name
    return None
