"""Find the files of each source, inspect their columns, and read them in blocks of rows."""

import gzip
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.files import is_remote, open_to_read
from components.interactions.config import (
    SOURCE_SETTINGS,
    SOURCES,
    IngestConfig,
    Source,
    query_fingerprint,
)
from components.interactions.errors import (
    ColumnError,
    NoInputError,
    QueryError,
    UnreadableFileError,
)
from components.interactions.sources.block import (
    READ_ERRORS,
    RECORD_HEAD_BYTES,
    Block,
    is_record_head,
    open_input,
)
from components.interactions.sources.columns import check_columns, source_columns
from components.interactions.sources.csv import check_encoding, csv_records, read_csv_blocks
from components.interactions.sources.tfrecord import (
    NUM_FIRST_RECORDS,
    FrameError,
    read_schema,
    read_tfrecord_blocks,
)
from components.interactions.spans.choice import choose_spans, join_first
from components.interactions.spans.pattern import list_files, query_of

FileFormat = Literal["csv", "parquet", "tfrecord"]

DEFAULT_BLOCK_BYTES = 16 << 20
# Any of them may be followed by `.gz`.
_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
# Approximate sizes relative to plain CSV, used only for the number of buckets. TFRecord is larger
# because each Example repeats the names of its features.
_COMPRESSED_EXPANSION = 4
_TFRECORD_EXPANSION = 4
# Number of bytes of each Parquet column to read at once, instead of a whole row group. It is larger
# for object stores, whose requests have a high fixed cost.
_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20
_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One input file.

    Attributes:
        index: Index among the files of the source, in name order.
        name: Path relative to the last folder without wildcards, for messages and reports.
        size_bytes: Size as stored, before decompression.
        header: Names of the columns; empty if the file has no rows.
        schema: Types of the columns; None for CSV.
    """

    source: Source
    index: int
    path: str
    name: str
    size_bytes: int
    format: FileFormat
    header: tuple[str, ...] = ()
    span: int | None = None
    schema: pa.Schema | None = None
    is_compressed: bool = False

    @property
    def csv_bytes(self) -> int:
        """Approximate size as plain CSV, in bytes."""
        size = self.size_bytes * (_COMPRESSED_EXPANSION if self.is_compressed else 1)
        return size // _TFRECORD_EXPANSION if self.format == "tfrecord" else size


def find_files(config: IngestConfig, sources: Sequence[Source] = SOURCES) -> tuple[SourceFile, ...]:
    """Return the files of each source in name order, after checking their columns.

    Raises:
        IngestError: A file, a span or a column is missing or unusable, or a source is a query that
            has not been executed (see `export_queries`).
    """
    config = choose_spans(config, sources)
    files: list[SourceFile] = []
    for source in sources:
        pattern = getattr(config.data, source)
        if pattern is None:
            continue
        matched = _match(config, source, pattern)
        found = inspect_files(source, pattern, matched, config.data.format, config.data.delimiter)
        if not any(file.header for file in found):
            raise no_rows(source, found)
        with_rows = [file for file in found if file.header]
        for file in with_rows:
            is_records = file.format == "tfrecord"
            seen = f" (in its first {NUM_FIRST_RECORDS:,} records)" if is_records else ""
            check_columns(
                file.name + seen, file.header, file.schema, source_columns(config, source)
            )
            if different := sorted(set(file.header) ^ set(with_rows[0].header)):
                raise ColumnError(
                    f"all files of a source must have the same columns, but only one of "
                    f"{file.name} and {with_rows[0].name} has {', '.join(different)}"
                )
        files += found
    return tuple(files)


def inspect_files(
    source: Source,
    pattern: str,
    matched: Sequence[tuple[str, int, int | None]],
    configured: FileFormat | Literal["auto"],
    delimiter: str,
) -> list[SourceFile]:
    """Detect the formats of files, and read their columns.

    `matched` has the path, the size in bytes, and the span number or None of each file.

    Raises:
        UnreadableFileError: A file does not have its format, or the format cannot be detected.
    """
    formats = [format_of(path) if configured == "auto" else configured for path, _, _ in matched]
    # An empty file with an unknown suffix gets the format of the others.
    usual: FileFormat = next((known for known in formats if known is not None), "csv")
    found = []
    for index, ((path, size, span), known) in enumerate(zip(matched, formats, strict=True)):
        name = _below_fixed_folder(path, pattern)
        file = SourceFile(source, index, path, name, size, known or usual, span=span)
        found.append(_inspect(file, delimiter) if known is not None and size else file)
    # Each TFRecord file gets the features of all; one that an Example lacks is read as empty.
    records = [file for file in found if file.format == "tfrecord" and file.schema]
    shared = {field.name: field for file in reversed(records) for field in file.schema or ()}
    for file in records:
        fields = shared | {field.name: field for field in file.schema or ()}
        schema = pa.schema(fields.values())
        found[file.index] = replace(file, header=tuple(sorted(fields)), schema=schema)
    return found


def format_of(path: str) -> FileFormat | None:
    """Return the format of a file by its suffix or, for TFRecord, by its first bytes.

    The format is None for an empty file with an unknown suffix.

    Raises:
        UnreadableFileError: The format cannot be detected.
    """
    suffix = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    try:
        with open_input(path) as stream:
            head = stream.read(RECORD_HEAD_BYTES)
    except READ_ERRORS:
        head = b"?"
    if not head:
        return None
    if is_record_head(head):
        return "tfrecord"
    raise UnreadableFileError(
        f"{path}: the suffix does not tell the format (known: {', '.join(_SUFFIXES)}); set "
        "`ingest.format` to csv, parquet or tfrecord"
    )


def no_rows(source: Source, files: Sequence[SourceFile]) -> NoInputError:
    """Return the error for a source whose files have no rows."""
    names = join_first([file.path for file in files])
    return NoInputError(
        f"`{SOURCE_SETTINGS[source]}`: there is not a single row of data in {names}"
    )


def fingerprint(config: IngestConfig, sources: Sequence[Source] = SOURCES) -> str:
    """Return a hash of the names, sizes and contents of the input files, for cache keys.

    Moving the whole folder does not change the hash; renaming a file does. For a BigQuery query,
    `query_fingerprint` is hashed instead.

    Raises:
        IngestError: A file or a span is missing or unreadable.
    """
    config = choose_spans(config, sources)
    total = hashlib.blake2b(digest_size=16)
    for source in sources:
        pattern = getattr(config.data, source)
        if pattern is None:
            continue
        if (query := query_fingerprint(config.data, source)) is not None:
            total.update(f"{source}\0{query}\n".encode())
            continue
        for path, size, _ in _match(config, source, pattern):
            content = hashlib.blake2b(digest_size=16)
            try:
                with open_to_read(path) as stream:
                    while block := stream.read(_HASH_BLOCK_BYTES):
                        content.update(block)
            except READ_ERRORS as error:
                raise UnreadableFileError(f"{path} cannot be read: {error}") from error
            name = _below_fixed_folder(path, pattern)
            total.update(f"{source}\0{name}\0{size}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def read_blocks(
    file: SourceFile, columns: Sequence[str], delimiter: str, block_bytes: int = DEFAULT_BLOCK_BYTES
) -> Iterator[Block]:
    """Yield the rows of a file in order, in blocks of about `block_bytes`.

    Raises:
        UnreadableFileError: The file is damaged or does not have its format.
    """
    if file.format == "csv":
        return read_csv_blocks(file.path, file.header, columns, delimiter, block_bytes)
    if file.format == "tfrecord":
        return read_tfrecord_blocks(file.path, file.schema, columns, block_bytes)
    return _read_parquet_blocks(file.path, columns, block_bytes)


def _read_parquet_blocks(path: str, columns: Sequence[str], block_bytes: int) -> Iterator[Block]:
    buffer_bytes = _REMOTE_BUFFER_BYTES if is_remote(path) else _BUFFER_BYTES
    try:
        with open_input(path) as stream:
            parquet = pq.ParquetFile(stream, buffer_size=buffer_bytes)
            metadata = parquet.metadata
            groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
            row_bytes = sum(group.total_byte_size for group in groups) // max(1, metadata.num_rows)
            batch_rows = max(1, block_bytes // max(1, row_bytes))
            next_row = 1
            for batch in parquet.iter_batches(batch_rows, columns=columns, use_threads=False):
                rows = np.arange(next_row, next_row + len(batch), dtype=np.int64)
                next_row += len(batch)
                yield Block({name: batch[name] for name in columns}, rows)
    except (pa.ArrowException, *READ_ERRORS) as error:
        raise UnreadableFileError(f"{path} cannot be read as Parquet: {error}") from error


def _match(config: IngestConfig, source: Source, pattern: str) -> list[tuple[str, int, int | None]]:
    """Return the path, size in bytes and span number of each file, in name order."""
    chosen = () if config.chosen_spans is None else config.chosen_spans.of(source)
    if chosen:
        return sorted((f.path, f.size_bytes, span.span) for span in chosen for f in span.files)
    if query_of(pattern) is not None:
        raise QueryError(f"`{SOURCE_SETTINGS[source]}` is a query, which only a run executes")
    found = list_files(pattern)
    if not found:
        raise NoInputError(f"`{SOURCE_SETTINGS[source]}`: no file matches {pattern}")
    return [(file.path, file.size_bytes, None) for file in found]


def _below_fixed_folder(path: str, pattern: str) -> str:
    fixed = min((pattern.find(sign) for sign in "*?[{" if sign in pattern), default=len(pattern))
    return path[pattern.rfind("/", 0, fixed) + 1 :]


def _inspect(file: SourceFile, delimiter: str) -> SourceFile:
    """Read the columns of a file, and return the file with them."""
    try:
        with open_input(file.path) as stream:
            schema = None
            if file.format == "csv":
                check_encoding(stream)
                records = csv_records(stream, delimiter)
                _, names = next(records, (0, []))
                # A file with only a header counts as empty, because Arrow would reject it.
                names = names if next(records, None) else []
            else:
                schema = (pq.read_schema if file.format == "parquet" else read_schema)(stream)
                names = schema.names
            compressed = file.format == "parquet" or isinstance(stream, gzip.GzipFile)
            return replace(file, header=tuple(names), schema=schema, is_compressed=compressed)
    except (pa.ArrowException, FrameError, *READ_ERRORS) as error:
        raise UnreadableFileError(
            f"{file.path} cannot be read as {file.format}: {error}; `ingest.format` selects "
            "another format"
        ) from error
