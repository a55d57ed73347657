"""Read the first rows of files whose columns are not declared yet."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.errors import NoInputError, QueryError, UnreadableFileError
from components.interactions.sources.block import READ_ERRORS, open_input
from components.interactions.sources.columns import accepts
from components.interactions.sources.csv import csv_records
from components.interactions.sources.files import (
    FileFormat,
    SourceFile,
    format_of,
    inspect_files,
    read_blocks,
)
from components.interactions.spans.listing import list_files
from components.interactions.spans.pattern import query_of
from components.interactions.stable_hash import DistinctIds

_DELIMITERS = (",", ";", "\t", "|")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Sample:
    """The first rows of the files that match a pattern.

    ```python
    sample = read_sample("logs/*.csv", max_rows=100_000)
    sample.columns["user_id"]  # strings; an empty value is null
    ```

    Attributes:
        files: All files that match the pattern.
        format: Format of the files.
        delimiter: The separator of CSV values; None for other formats.
        columns: Values by column name: strings from CSV, with null for empty values; physical types
            from Parquet; strings, numbers or lists of them from TFRecord.
        unusable: Reasons for leaving columns out of `columns`, by column name.
        num_rows: Number of rows in `columns`.
        num_malformed: Number of skipped rows that could not be split into columns.
        is_complete: Whether the sample has all rows of the files.
    """

    files: list[str]
    format: FileFormat
    delimiter: str | None
    columns: dict[str, Any]
    unusable: dict[str, str] = field(default_factory=dict)
    num_rows: int = 0
    num_malformed: int = 0
    is_complete: bool = True


def read_sample(pattern: str, *, max_rows: int) -> Sample:
    """Read the first rows of the files that match a pattern.

    Args:
        pattern: A file or glob as in `events.files`; it may have span placeholders.
        max_rows: Maximum number of rows to read.

    Raises:
        NoInputError: No file matches, or the files have no rows.
        QueryError: The pattern is a query.
        UnreadableFileError: A file is damaged, or the formats cannot be detected or differ.
    """
    files, delimiter = _inspect(pattern)
    with_rows = [file for file in files if file.header]
    if not with_rows:
        raise NoInputError(f"{pattern} has no row of data")
    names, unusable = _usable_names(with_rows)
    chunks: dict[str, list[Any]] = {name: [] for name in names}
    num_rows = num_malformed = 0
    is_complete = True
    for file in with_rows:
        for block in read_blocks(file, names, delimiter, _BLOCK_BYTES):
            wanted = max_rows - num_rows
            is_complete = len(block.rows) <= wanted
            for name in names:
                chunks[name].append(_readable(block.columns[name][:wanted], file.format))
            num_rows += min(len(block.rows), wanted)
            num_malformed += len(block.malformed)
            if not is_complete:
                break
        if not is_complete:
            break
    file_format = with_rows[0].format
    return Sample(
        [file.path for file in files],
        file_format,
        delimiter if file_format == "csv" else None,
        {name: _chunked(parts) for name, parts in chunks.items()},
        unusable,
        num_rows,
        num_malformed,
        is_complete,
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
            num_rows += len(block.rows)
            values = _readable(block.columns[column], file.format)
            if not pa.types.is_list(values.type):
                distinct.add(values.cast(pa.string()).drop_null())
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
    return [name for name in files[0].header if name not in unusable], unusable


def _readable(values: Any, file_format: FileFormat) -> Any:
    """Convert bytes to strings; invalid UTF-8 is replaced, and empty CSV values become null."""
    if file_format == "parquet":
        return values
    if pa.types.is_list(values.type):
        return pa.ListArray.from_arrays(values.offsets, _readable(values.values, file_format))
    if not pa.types.is_binary(values.type):
        return values
    try:
        texts = values.cast(pa.string())
    except pa.ArrowInvalid:
        texts = pa.array(list(_decoded(values)), pa.string())
    if file_format == "csv":
        texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    return texts


def _decoded(values: Any) -> Iterator[str | None]:
    for value in values.to_pylist():
        yield None if value is None else value.decode("utf-8", errors="replace")


def _chunked(parts: list[Any]) -> pa.ChunkedArray:
    """Combine arrays into one column of a type that can represent all of them."""
    kinds = {part.type for part in parts}
    if len(kinds) == 1:
        return pa.chunked_array(parts)
    if any(pa.types.is_list(kind) for kind in kinds):
        parts = [part if pa.types.is_list(part.type) else _in_lists(part) for part in parts]
        inner = {part.type.value_type for part in parts}
        common = inner.pop() if len(inner) == 1 else pa.string()
        return pa.chunked_array([part.cast(pa.list_(common)) for part in parts])
    if all(pa.types.is_integer(kind) for kind in kinds):
        common = pa.int64()
    elif all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        common = pa.float64()
    else:
        common = pa.string()
    return pa.chunked_array([part.cast(common) for part in parts])


def _in_lists(values: Any) -> Any:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), values)
