"""Statistics of the values of one column."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

Content = Literal["number", "boolean", "time", "list", "string", "other"]

# Codes such as 05201 are not numbers, because their leading zeros are significant.
_NUMBER = r"^\s*[+-]?(0|[1-9]\d*|0?\.\d+|(0|[1-9]\d*)\.\d*)([eE][+-]?\d+)?\s*$"
_DATE = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"
_ADDRESS = r"(?i)(://|^[./\\]|\.(jpe?g|png|gif|webp|svg|html?)$)"


@dataclass(frozen=True)
class ColumnProfile:
    """Statistics of a column; means and shares are over the rows that have a value.

    Attributes:
        name: Name of the column in the file.
        content: Type of the values.
        num_present: Number of rows with a value.
        num_distinct: Number of distinct values; items are counted in a column of lists.
        values: Non-empty values as strings; lists are flattened.
        numbers: The finite numbers, or None if the values are not numbers.
        is_integer: Whether all numbers are integers.
        words: Mean number of words per string.
        address_share: Share of strings that are URLs or paths.
        number_share: Share of strings that are numbers.
    """

    name: str
    content: Content
    num_present: int
    num_distinct: int
    values: pl.Series
    numbers: pl.Series | None = None
    is_integer: bool = False
    words: float = 0.0
    address_share: float = 0.0
    number_share: float = 0.0


def profile(column: pl.Series) -> ColumnProfile:
    """Return the statistics of a column."""
    dtype = column.dtype
    if isinstance(dtype, pl.List | pl.Array):
        return _of_lists(column)
    if dtype.is_nested() or dtype == pl.Binary or dtype == pl.Object:
        return ColumnProfile(column.name, "other", column.len() - column.null_count(), 0, column)
    values = column.drop_nulls().cast(pl.String)
    values = values.filter(values != "")
    num_distinct = values.n_unique()
    content: Content = "string"
    numbers = None
    if dtype.is_numeric() or (dtype == pl.String and _all_match(values, _NUMBER)):
        content = "number"
        numbers = values.str.strip_chars().str.strip_prefix("+").cast(pl.Float64)
        numbers = numbers.filter(numbers.is_finite())
    elif dtype == pl.Boolean:
        content = "boolean"
    elif dtype.is_temporal() or (dtype == pl.String and _all_match(values, _DATE)):
        content = "time"
    return ColumnProfile(
        column.name,
        content,
        values.len(),
        num_distinct,
        values,
        numbers,
        is_integer=numbers is not None and bool((numbers == numbers.floor()).all()),
        words=_mean(values.str.count_matches(r"[^\s_-]+")) if content == "string" else 0.0,
        address_share=_mean(values.str.contains(_ADDRESS)) if content == "string" else 0.0,
        number_share=_mean(values.str.contains(_NUMBER)) if content == "string" else 0.0,
    )


def _of_lists(column: pl.Series) -> ColumnProfile:
    items = column.drop_nulls().explode().drop_nulls()
    if items.dtype.is_nested() or items.dtype == pl.Binary:
        return ColumnProfile(column.name, "other", column.len(), 0, items)
    items = items.cast(pl.String)
    return ColumnProfile(column.name, "list", column.len(), items.n_unique(), items)


def _all_match(values: pl.Series, pattern: str) -> bool:
    return values.len() > 0 and bool(values.str.contains(pattern).all())


def _mean(series: pl.Series) -> float:
    mean = series.cast(pl.Float64).mean()
    return float(mean) if isinstance(mean, int | float) else 0.0
