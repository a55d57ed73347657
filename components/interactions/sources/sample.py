"""Read the first rows of files whose columns are not declared yet."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from components.interactions.errors import NoInputError, QueryError, UnreadableFileError
from components.interactions.rows.column_types import text
from components.interactions.sources.block import READ_ERRORS, open_input
from components.interactions.sources.columns import accepts
from components.interactions.sources.csv import check_encoding, csv_records
from components.interactions.sources.files import (
    FileFormat,
    SourceFile,
    format_of,
    inspect_files,
    read_blocks,
)
from components.interactions.spans.pattern import list_files, query_of
from components.interactions.stable_hash import DistinctIds

_DELIMITERS = (",", ";", "\t", "|")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Sample:
    """The first rows, or all, of the files that match a pattern.

    The values of `table` are strings from CSV, with null for empty values; physical types from
    Parquet; strings, numbers or lists of them from TFRecord. `unusable` has a reason for each
    column that the table lacks. `delimiter` is None unless the format is CSV.
    """

    files: list[str]
    delimiter: str | None
    table: pl.DataFrame
    unusable: dict[str, str]
    is_complete: bool


def read_sample(pattern: str, *, max_rows: int) -> Sample:
    """Read the first rows of the files that match a pattern; malformed rows are skipped.

    Raises:
        NoInputError: No file matches, or the files have no rows.
        QueryError: The pattern is a query.
        UnreadableFileError: A file is damaged, or the formats cannot be detected or differ.
    """
    files, delimiter = _inspect(pattern)
    with_rows = [file for file in files if file.header]
    names, unusable = _usable_names(with_rows)
    parts: dict[str, list[pl.Series]] = {name: [] for name in names}
    wanted = max_rows
    blocks = (
        (file.format, block)
        for file in with_rows
        for block in read_blocks(file, names, delimiter, _BLOCK_BYTES)
    )
    for file_format, block in blocks:
        for name in names:
            parts[name].append(_readable(block.columns[name][: max(0, wanted)], file_format))
        wanted -= len(block.lines)
        if wanted < 0:
            break
    if wanted == max_rows:
        raise NoInputError(f"{pattern} has no row of data")
    return Sample(
        [file.path for file in files],
        delimiter if with_rows[0].format == "csv" else None,
        pl.DataFrame({name: _combined(found) for name, found in parts.items()}),
        unusable,
        is_complete=wanted >= 0,
    )


def count_rows(pattern: str, column: str) -> tuple[int, int]:
    """Count the well-formed rows of all files, and the distinct values of a column.

    Raises:
        IngestError: See `read_sample`.
    """
    files, delimiter = _inspect(pattern)
    distinct = DistinctIds()
    num_rows = 0
    for file in files:
        for block in read_blocks(file, [column], delimiter) if file.header else ():
            num_rows += len(block.lines)
            values = _readable(block.columns[column], file.format)
            if values.dtype != pl.List:
                texts = values.cast(pl.String).drop_nulls()
                distinct.add(texts.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return num_rows, len(distinct.merged()[0])


def _inspect(pattern: str) -> tuple[list[SourceFile], str]:
    if query_of(pattern) is not None:
        raise QueryError("a query cannot be sampled; export some of its rows to a file")
    listed = list_files(pattern)
    if not listed:
        raise NoInputError(f"no file matches {pattern}")
    formats = {found for file in listed if (found := format_of(file.path)) is not None}
    if len(formats) > 1:
        raise UnreadableFileError(
            f"all files of a pattern must have the same format, but {pattern} matches "
            f"{', '.join(sorted(formats))}"
        )
    first = next((file.path for file in listed if file.size_bytes), "")
    delimiter = _guess_delimiter(first) if formats == {"csv"} and first else ","
    matched = [(file.path, file.size_bytes, None) for file in listed]
    return inspect_files("interactions", pattern, matched, "auto", delimiter), delimiter


def _guess_delimiter(path: str) -> str:
    try:
        with open_input(path) as stream:
            check_encoding(stream)
            # With a delimiter that does not occur in text, the whole header is a single value.
            _, header = next(csv_records(stream, "\x1f"), (0, [""]))
    except READ_ERRORS as error:
        raise UnreadableFileError(f"{path} cannot be read as csv: {error}") from error
    return max(_DELIMITERS, key=header[0].count)


def _usable_names(files: list[SourceFile]) -> tuple[list[str], dict[str, str]]:
    """Return the readable columns that all files have, and a reason for each other column."""
    unusable: dict[str, str] = {}
    for file in files:
        counts = Counter(file.header)
        for name in counts:
            if not name:
                unusable[name] = "the column has no name"
            elif counts[name] > 1:
                unusable[name] = f"{counts[name]} columns of {file.name} have this name"
            elif any(name not in other.header for other in files):
                unusable[name] = "some files do not have the column"
            elif file.schema is not None:
                kind = file.schema.field(name).type
                if not any(accepts(column, kind) for column in ("text", "time", "number")):
                    unusable[name] = f"values of type {kind} cannot be read"
    return [name for file in files[:1] for name in file.header if name not in unusable], unusable


def _readable(values: Any, file_format: FileFormat) -> pl.Series:
    """Convert bytes to strings; values that are not UTF-8, and empty CSV values, become null."""
    if file_format != "parquet":
        if pa.types.is_binary(values.type):
            values = text(values).array
        elif pa.types.is_list(values.type) and pa.types.is_binary(values.type.value_type):
            values = pa.ListArray.from_arrays(values.offsets, text(values.values).array)
    series = pl.Series(pl.from_arrow(values))
    return series.replace("", None) if file_format == "csv" else series


def _combined(parts: list[pl.Series]) -> pl.Series:
    """Combine series into one of a type that can represent all of them."""
    if any(part.dtype == pl.List for part in parts):
        parts = [
            part if part.dtype == pl.List else pl.select(pl.concat_list(part)).to_series()
            for part in parts
        ]
    frames = [part.alias("").to_frame() for part in parts]
    return pl.concat(frames, how="vertical_relaxed").to_series()
