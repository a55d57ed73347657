"""Statistics of the events, and detection of their time column and its unit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from models.features.spec import ColumnsConfig
from pipeline.errors import InitError
from pipeline.init.column_profile import profile

TimestampUnit = Literal["s", "ms", "us", "ns", "iso8601"]

# 1e11 is the year 5138 in seconds and 1973 in milliseconds, so times after 1973 are unambiguous.
_LIMITS: tuple[tuple[float, TimestampUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
_TIME_NAME = re.compile(
    r"(?i)^(event_?|rating_?|click_?)?(timestamp|time|ts|date|datetime|unix_?time|epoch)(_?(s|ms|us|ns))?$"
    r"|^(created|updated|occurred|clicked|viewed|rated|event)_?(at|on|time|date|ts|timestamp)$"
)


@dataclass(frozen=True)
class EventStatistics:
    """Statistics of the events that determine the drafted training and evaluation settings.

    Attributes:
        num_events: Number of events.
        num_queries: Number of queries.
        repeat_share: Share of sampled events that repeat a candidate of the same query.
    """

    num_events: int
    num_queries: int
    repeat_share: float


def event_statistics(events: pl.DataFrame, columns: ColumnsConfig) -> EventStatistics:
    """Return the statistics of a sample of the events."""
    query, candidate = columns.query_id, columns.candidate_id
    # Duplicates are not counted, because ingestion drops them.
    keys = [query, candidate, *([columns.timestamp] if columns.timestamp else [])]
    num_events = events.select(keys).n_unique()
    pairs = events.select(query, candidate).n_unique()
    return EventStatistics(num_events, events[query].n_unique(), 1 - pairs / num_events)


def timestamp_unit(column: pl.Series, option: str = "--timestamp") -> TimestampUnit:
    """Return the unit of a time column, which is inferred from the magnitude of its values.

    Raises:
        InitError: The values are not times.
    """
    found = profile(column)
    if found.content == "time":
        return "iso8601"
    if found.content == "number" and found.numbers is not None and not found.numbers.is_empty():
        middle = abs(float(found.numbers.quantile(0.5, "nearest") or 0))
        return next((unit for limit, unit in _LIMITS if middle < limit), "ns")
    shown = repr(found.values[0][:40]) if found.num_present else "no value"
    raise InitError(
        f"{option} {column.name} must hold epochs, or ISO 8601 times such as 2024-05-01T12:00:00; "
        f"got {shown}"
    )


def likely_time_column(table: pl.DataFrame, used: Sequence[str]) -> str | None:
    """Return a column whose name and values look like timestamps, or None."""
    for name in table.columns:
        if name in used or not _TIME_NAME.search(name):
            continue
        try:
            timestamp_unit(table[name])
        except InitError:
            continue
        return name
    return None
