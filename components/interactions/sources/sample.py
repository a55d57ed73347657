"""Read the first rows of files whose columns are not declared yet."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from components.interactions.errors import NoInputError, QueryError, UnreadableFileError
from components.interactions.rows.times import time
from components.interactions.rows.values import text
from components.interactions.sources.block import BadRow
from components.interactions.sources.columns import accepts, check_same_columns
from components.interactions.sources.files import SourceFile, inspect_files, read_blocks
from components.interactions.spans.pattern import (
    find_delivery,
    list_files,
    query_of,
    span_kind,
)
from components.interactions.stable_hash import DistinctIds

_BLOCK_BYTES = 1 << 20
_NO_COLUMN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)


@dataclass(frozen=True)
class Sample:
    """The first rows, or all, of the files that match a pattern.

    The values of `table` are strings from CSV, with null for empty values; physical types from
    Parquet; strings, numbers or lists of them from JSON Lines and TFRecord. `unusable` has a reason
    for each column that the table lacks.
    """

    table: pl.DataFrame
    unusable: dict[str, str]
    is_complete: bool


def read_sample(pattern: str, *, max_rows: int, newest_span: bool = False) -> Sample:
    """Read the first rows of the files that match a pattern; malformed rows are skipped.

    With `newest_span`, only the files of the newest span of the pattern are read, if it has spans.

    Raises:
        NoInputError: No file matches, or the files have no rows.
        QueryError: The pattern is a query.
        UnreadableFileError: A file is damaged, or the formats cannot be detected or differ.
        ColumnError: The files have different columns.
    """
    with_rows = _inspect(pattern, newest_span=newest_span)
    names, unusable = _usable_names(with_rows)
    parts: dict[str, list[pl.Series]] = {name: [] for name in names}
    wanted = max_rows
    malformed: list[tuple[SourceFile, BadRow]] = []
    blocks = (
        (file, block) for file in with_rows for block in read_blocks(file, names, _BLOCK_BYTES)
    )
    for file, block in blocks:
        malformed += [(file, row) for row in block.malformed[: 1 - len(malformed)]]
        for name in set(names) - set(unusable):
            values = block.columns[name][: max(0, wanted)]
            try:
                parts[name].append(_readable(values, is_csv=file.format == "csv"))
            except _NO_COLUMN as error:
                unusable[name] = f"{file.name}: its values cannot be read: {error}"
        wanted -= len(block.lines)
        if wanted < 0:
            break
    if wanted == max_rows:
        problem = f"{pattern} has no row of data"
        for file, row in malformed:
            problem = (
                f"{pattern} has no valid row. The first is line {row.line} of {file.name}: "
                f"{row.reason}: {row.value}. The columns are {', '.join(file.header)}"
            )
        raise NoInputError(problem)
    table = {name: _combined(found) for name, found in parts.items() if name not in unusable}
    return Sample(pl.DataFrame(table), unusable, is_complete=wanted >= 0)


def count_rows(pattern: str, *columns: str) -> tuple[int, ...]:
    """Count the well-formed rows of all files, and the distinct values of each of the columns.

    Raises:
        IngestError: See `read_sample`.
    """
    distinct = {column: DistinctIds() for column in columns}
    num_rows = 0
    for file in _inspect(pattern):
        for block in read_blocks(file, list(columns)):
            num_rows += len(block.lines)
            for column, found in distinct.items():
                values = _readable(block.columns[column], is_csv=file.format == "csv")
                if values.dtype != pl.List:
                    texts = values.cast(pl.String).drop_nulls()
                    found.add(texts.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return num_rows, *(len(found.merged()[0]) for found in distinct.values())


def _inspect(pattern: str, *, newest_span: bool = False) -> list[SourceFile]:
    """Return the files that have rows."""
    if query_of(pattern) is not None:
        raise QueryError("a query cannot be sampled; export some of its rows to a file")
    try:
        has_spans = span_kind(pattern) is not None
        listed = list_files(pattern)
        spans = [_span(pattern, file.path) for file in listed] if has_spans else []
    except ValueError as error:
        raise NoInputError(str(error)) from error
    if not listed:
        raise NoInputError(f"no file matches {pattern}")
    if newest_span and has_spans:
        listed = [file for file, span in zip(listed, spans, strict=True) if span == max(spans)]
    matched = [(file.path, file.size_bytes, None) for file in listed]
    files = inspect_files("interactions", pattern, matched, "auto", None)
    with_rows = [file for file in files if file.header]
    if len(formats := {file.format for file in with_rows}) > 1:
        raise UnreadableFileError(
            f"all files of a pattern must have the same format, but {pattern} matches "
            f"{', '.join(sorted(formats))}"
        )
    check_same_columns({file.name: file.header for file in with_rows})
    return with_rows


def _span(pattern: str, path: str) -> int:
    found = find_delivery(pattern, path)
    return -1 if found is None else found.span


def _usable_names(files: list[SourceFile]) -> tuple[list[str], dict[str, str]]:
    """Return the readable columns, and a reason for each other column."""
    unusable: dict[str, str] = {}
    for file in files:
        for name, count in Counter(file.header).items():
            if not name:
                unusable[name] = "the column has no name"
            elif count > 1:
                unusable[name] = f"{count} columns of {file.name} have this name"
            elif file.schema is not None:
                kind = file.schema.field(name).type
                if not any(accepts(column, kind) for column in ("text", "time", "number")):
                    unusable[name] = f"values of type {kind} cannot be read"
    return [name for file in files[:1] for name in file.header if name not in unusable], unusable


def _readable(values: Any, *, is_csv: bool) -> pl.Series:
    """Convert values to a type of polars.

    Bytes become strings; those that are not UTF-8, and empty values of CSV, become null, as do
    times outside the years 1 to 9999.
    """
    kind = values.type
    if pa.types.is_list(kind) and _has_bytes(kind.value_type):
        values = pa.ListArray.from_arrays(values.offsets, text(values.values).array)
    elif _has_bytes(kind) or pa.types.is_dictionary(kind) or pa.types.is_decimal256(kind):
        values = text(values).array
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        # Polars fails on times outside the years that it can print.
        times = time(values, "s")
        outside = np.logical_or.reduce([mask for _, mask in times.faults])
        values = pa.array(times.array.to_numpy(), mask=outside).cast(pa.timestamp("us"))
    series = pl.Series(pl.from_arrow(values))
    return series.replace("", None) if is_csv else series


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _combined(parts: list[pl.Series]) -> pl.Series:
    """Combine series into one of a type that can represent all of them."""
    as_text: Any = pl.String
    if any(part.dtype == pl.List for part in parts):
        as_text = pl.List(pl.String)
        parts = [
            part if part.dtype == pl.List else pl.select(pl.concat_list(part)).to_series()
            for part in parts
        ]
    frames = [part.alias("").to_frame() for part in parts]
    # A common type of times and numbers would have the numbers as times of another unit.
    if len({part.dtype.is_temporal() for part in parts if part.dtype != pl.Null}) > 1:
        return pl.concat([frame.cast(as_text) for frame in frames]).to_series()
    try:
        return pl.concat(frames, how="vertical_relaxed").to_series()
    except pl.exceptions.PolarsError:
        return pl.concat([frame.cast(as_text) for frame in frames]).to_series()
