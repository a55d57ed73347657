"""Statistics of the values of one column."""

import contextlib
import re
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from pipeline.errors import InitError
from pipeline.init.format_detection import (
    find_lists,
    find_numbers,
    find_times,
    looks_like_times,
)

Content = Literal["number", "boolean", "time", "list", "string", "other"]

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
    number_format: str | None = None  # of numbers that are text; None if they are plain
    list_format: str | None = None  # of lists that are text
    list_length: int | None = None  # if all lists have the same length and no missing item
    problem: str = ""  # a reason why the values cannot be used

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
    length = None
    if is_list:
        as_lists = items if dtype == pl.List else items.arr.to_list()
        lengths = as_lists.list.len().unique()
        items = items.explode()
        if len(lengths) == 1 and not items.null_count():
            length = int(lengths[0])
        items = items.drop_nulls()
    if items.dtype.is_nested() or items.dtype in (pl.Binary, pl.Object):
        return ColumnProfile(column.name, "other", num_present, items)
    values = items.cast(pl.String)
    if is_list:
        return ColumnProfile(column.name, "list", num_present, values, list_length=length)
    values = values.filter(values != "")
    if dtype.is_numeric():
        numbers = values.cast(pl.Float64)
        numbers = numbers.filter(numbers.is_finite())
        return ColumnProfile(column.name, "number", values.len(), values, numbers)
    if dtype == pl.String:
        return _profile_of_text(column.name, values)
    content: Content = "boolean" if dtype == pl.Boolean else "string"
    if dtype.is_temporal():
        content = "time"
    return ColumnProfile(column.name, content, values.len(), values)


def _profile_of_text(name: str, values: pl.Series) -> ColumnProfile:
    num_present = values.len()
    lists = find_lists(values)
    numbers = find_numbers(values) if lists is None else None
    found = lists or numbers
    if found is not None and found.problem:
        return ColumnProfile(name, "string", num_present, values, problem=found.problem)
    if lists is not None:
        return ColumnProfile(name, "list", num_present, lists.values, list_format=lists.format)
    if numbers is not None:
        finite = numbers.values.filter(numbers.values.is_finite())
        return ColumnProfile(
            name, "number", num_present, values, finite, number_format=numbers.format
        )
    content: Content = "time" if looks_like_times(values) else "string"
    return ColumnProfile(name, content, num_present, values)


def likely_time_column(table: pl.DataFrame) -> str | None:
    """Return a column whose name and values look like timestamps, or None."""
    for column in table.iter_columns():
        if _TIME_NAME.search(column.name) and not column.dtype.is_nested():
            with contextlib.suppress(InitError):
                find_times(column)
                return column.name
    return None
