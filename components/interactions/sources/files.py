"""Finds the input files on any Beam filesystem and holds their headers against the config."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.interactions.config import (
    SOURCE_SETTINGS,
    SOURCES,
    DataConfig,
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
from components.interactions.sources.block import READ_ERRORS, Block, open_input
from components.interactions.sources.columns import (
    _check_kinds,
    _check_types,
    source_columns,
)
from components.interactions.sources.csv import csv_records, read_csv_blocks
from components.interactions.sources.tfrecord import (
    HEAD_BYTES,
    NUM_FIRST_RECORDS,
    FeatureKind,
    FrameError,
    feature_kinds,
    first_records,
    is_gzipped,
    is_head,
    open_records,
    read_tfrecord_blocks,
)
from components.interactions.spans.choice import choose_spans
from components.interactions.spans.pattern import query_of

# Bytes of CSV that a byte of a compressed file stands for, roughly; only sizes buckets.
_COMPRESSED_EXPANSION = 4

# Bytes of TFRecord for a byte of CSV, roughly: every Example names its features.
_TFRECORD_EXPANSION = 4

_NUM_SHOWN = 5

_HASH_BLOCK_BYTES = 1 << 20

_AS_IS = CompressionTypes.UNCOMPRESSED


FileFormat = Literal["csv", "parquet", "tfrecord"]

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecord.gz": "tfrecord",
    ".tfrecords": "tfrecord",
    ".tfrecords.gz": "tfrecord",
}


@dataclass(frozen=True)
class SourceFile:
    """One input file.

    Attributes:
        source: What it holds.
        index: Its place among the source's files, in name order.
        path: Where it is.
        name: The path below the pattern's fixed folder: what messages and reports show.
        size_bytes: As stored.
        format: How to read it.
        header: Its columns; empty for a file without rows.
        span: Number of its span; None: it belongs to none.
        kinds: Of TFRecord: name and kind of each feature in the header.
        is_packed: Whether it takes more bytes when it is read.
    """

    source: Source
    index: int
    path: str
    name: str
    size_bytes: int
    format: FileFormat
    header: tuple[str, ...]
    span: int | None = None
    kinds: tuple[tuple[str, FeatureKind], ...] = ()
    is_packed: bool = False

    @property
    def csv_bytes(self) -> int:
        """Its size as plain CSV, roughly."""
        size = self.size_bytes * (_COMPRESSED_EXPANSION if self.is_packed else 1)
        return size // _TFRECORD_EXPANSION if self.format == "tfrecord" else size


def find_files(config: IngestConfig, sources: Sequence[Source] = SOURCES) -> tuple[SourceFile, ...]:
    """Returns the input files, each source's in name order, with headers that fit the config.

    Spans are chosen where they are not yet.

    Raises:
        NoInputError: A pattern matches no file, or only empty ones.
        MissingSpanError: A span must be there and is not.
        UnreadableFileError: A file is not of its format, or the format cannot be told.
        QueryError: A source is a query that has not been executed, see `export_queries`.
        ColumnError: A declared column is missing or doubled, or headers differ.
    """
    config = choose_spans(config, sources)
    files: list[SourceFile] = []
    for source in sources:
        pattern = getattr(config.data, source)
        if pattern is None:
            continue
        matched = _match(config, source, pattern)
        formats = [format_of(config.data, path) for path, _, _ in matched]
        # What is empty and does not tell its format is as its siblings are.
        usual: FileFormat = next((known for known in formats if known is not None), "csv")
        found = [
            _inspect(config, source, index, file, file_format, pattern)
            if file_format is not None
            else _empty_file(source, index, file, usual, pattern)
            for index, (file, file_format) in enumerate(zip(matched, formats, strict=True))
        ]
        found = _share_features(found)
        if not any(file.header for file in found):
            raise no_rows(source, found)
        _check_headers(config, source, found)
        files += found
    return tuple(files)


def no_rows(source: Source, files: Sequence[SourceFile]) -> NoInputError:
    """Returns the error for a source whose files hold no rows."""
    names = ", ".join(file.path for file in files[:_NUM_SHOWN])
    more = f" and {len(files) - _NUM_SHOWN} more" if len(files) > _NUM_SHOWN else ""
    return NoInputError(f"`{SOURCE_SETTINGS[source]}`: not a single row of data in {names}{more}")


def fingerprint(config: IngestConfig, sources: Sequence[Source] = SOURCES) -> str:
    """Returns a hash over the names, sizes and contents of the input files, for cache keys.

    Where the files lie does not count, what they are called below the pattern's folder does. A
    query has the hash that `query_fingerprint` says.

    Raises:
        NoInputError: A pattern matches no file.
        MissingSpanError: A span must be there and is not.
        UnreadableFileError: A file cannot be read, or is a folder.
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
                with FileSystems.open(path, compression_type=_AS_IS) as stream:
                    while block := stream.read(_HASH_BLOCK_BYTES):
                        content.update(block)
            except READ_ERRORS as error:
                raise UnreadableFileError(f"{path} cannot be read: {error}") from error
            name = _below_fixed_folder(path, pattern)
            total.update(f"{source}\0{name}\0{size}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def _match(config: IngestConfig, source: Source, pattern: str) -> list[tuple[str, int, int | None]]:
    """Returns path, size and span of each file."""
    chosen = () if config.chosen_spans is None else config.chosen_spans.of(source)
    if chosen:
        return sorted((f.path, f.size_bytes, span.span) for span in chosen for f in span.files)
    if query_of(pattern) is not None:
        raise QueryError(f"`{SOURCE_SETTINGS[source]}` is a query, which only a run executes")
    try:
        (matched,) = FileSystems.match([pattern])
    except (BeamIOError, ValueError) as error:
        raise NoInputError(
            f"`{SOURCE_SETTINGS[source]}`: {pattern} cannot be listed: {error}"
        ) from error
    found = [(entry.path, entry.size_in_bytes, None) for entry in matched.metadata_list]
    if not found:
        raise NoInputError(f"`{SOURCE_SETTINGS[source]}`: no file matches {pattern}")
    return sorted(found)


def _below_fixed_folder(path: str, pattern: str) -> str:
    fixed = min((pattern.find(sign) for sign in "*?[{" if sign in pattern), default=len(pattern))
    return path[pattern.rfind("/", 0, fixed) + 1 :]


def _empty_file(
    source: Source,
    index: int,
    found: tuple[str, int, int | None],
    file_format: FileFormat,
    pattern: str,
) -> SourceFile:
    path, size, span = found
    name = _below_fixed_folder(path, pattern)
    return SourceFile(source, index, path, name, size, file_format, (), span)


def _inspect(
    config: IngestConfig,
    source: Source,
    index: int,
    found: tuple[str, int, int | None],
    file_format: FileFormat,
    pattern: str,
) -> SourceFile:
    path, size, span = found
    is_packed = file_format == "parquet" or path.lower().endswith(".gz")
    header: tuple[str, ...] = ()
    kinds: dict[str, FeatureKind] = {}
    if size > 0:
        try:
            if file_format == "tfrecord":
                kinds = feature_kinds(first_records(path))
                _check_kinds(config, source, path, kinds)
                header = tuple(sorted(kinds))
                is_packed = is_gzipped(path)
            elif file_format == "parquet":
                with open_input(path) as stream:
                    schema = pq.read_schema(stream)
                _check_types(config, source, path, schema)
                header = tuple(schema.names)
            else:
                with open_input(path) as stream:
                    records = csv_records(stream, config.data.delimiter)
                    _, names = next(records, (0, []))
                    # A header alone counts as nothing: Arrow refuses it.
                    header = tuple(names) if next(records, None) else ()
        except (pa.ArrowInvalid, FrameError, *READ_ERRORS) as error:
            raise UnreadableFileError(
                f"{path} cannot be read as {file_format}: {error}; `ingest.format` chooses another "
                "format"
            ) from error
    name = _below_fixed_folder(path, pattern)
    return SourceFile(
        source, index, path, name, size, file_format, header, span, tuple(kinds.items()), is_packed
    )


def _share_features(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Gives every TFRecord file the features of all: what an Example lacks is an empty value."""
    shared: dict[str, FeatureKind] = {}
    for file in files:
        shared = {**dict(file.kinds), **shared}
    header = tuple(sorted(shared))
    return [
        replace(file, header=header, kinds=tuple({**shared, **dict(file.kinds)}.items()))
        if file.kinds
        else file
        for file in files
    ]


def _check_headers(config: IngestConfig, source: Source, files: Sequence[SourceFile]) -> None:
    with_header = [file for file in files if file.header]
    declared = [column.column for column in source_columns(config, source)]
    for file in with_header:
        counts = Counter(file.header)
        for column in declared:
            if counts[column] > 1:
                raise ColumnError(f"{file.name} has {counts[column]} columns called {column!r}")
            if not counts[column]:
                nearest = difflib.get_close_matches(column, file.header, n=1, cutoff=0.0)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
                where = f" (of its first {NUM_FIRST_RECORDS:,} records)" if file.kinds else ""
                raise ColumnError(
                    f"{file.name} has no column {column!r}{hint} Its columns{where}: "
                    f"{', '.join(file.header)}"
                )
        first = with_header[0]
        if set(file.header) != set(first.header):
            different = sorted(set(file.header) ^ set(first.header))
            raise ColumnError(
                f"{file.name} and {first.name} differ in their columns: {', '.join(different)} "
                "stands in only one of them"
            )


def format_of(data: DataConfig, path: str) -> FileFormat | None:
    """Returns the format of a file, as the settings say, by its suffix or by its first bytes.

    None: an empty file, gzipped or not, has none where its name tells nothing.

    Raises:
        UnreadableFileError: None of them tells, and there is something to read.
    """
    if data.format != "auto":
        return data.format
    found = detect_format(path)
    if found is None and not _is_empty(path):
        raise UnreadableFileError(
            f"{path}: the suffix does not tell the format (known: {', '.join(_SUFFIXES)}); set "
            "`ingest.format` to csv, parquet or tfrecord"
        )
    return found


def detect_format(path: str) -> FileFormat | None:
    """Returns the format by the suffix or, of TFRecord, by the first bytes; None: neither tells."""
    for suffix, file_format in _SUFFIXES.items():
        if path.lower().endswith(suffix):
            return file_format
    try:
        with open_records(path) as stream:
            return "tfrecord" if is_head(stream.read(HEAD_BYTES)) else None
    except READ_ERRORS:
        return None


def _is_empty(path: str) -> bool:
    try:
        with open_records(path) as stream:
            return not stream.read(1)
    except READ_ERRORS:
        return False


# Of each column this much is read at once, instead of all that a row group holds of it. A request
# to an object store costs more than what it brings, so there it is more.
_BUFFER_BYTES = 1 << 20

_REMOTE_BUFFER_BYTES = 8 << 20


def read_blocks(
    file: SourceFile, columns: list[str], delimiter: str, block_bytes: int
) -> Iterator[Block]:
    """Yields the blocks of a file in order.

    Args:
        file: What to read.
        columns: The columns to read.
        delimiter: CSV only.
        block_bytes: Roughly how much of the file a block holds.

    Raises:
        UnreadableFileError: The file is not of its format.
    """
    if file.format == "csv":
        yield from read_csv_blocks(file.path, file.header, columns, delimiter, block_bytes)
        return
    if file.format == "tfrecord":
        yield from read_tfrecord_blocks(file.path, dict(file.kinds), columns, block_bytes)
        return
    try:
        yield from _read_parquet_blocks(file, columns, block_bytes)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFileError(f"{file.path} cannot be read as Parquet: {error}") from error


def _read_parquet_blocks(file: SourceFile, columns: list[str], block_bytes: int) -> Iterator[Block]:
    buffer_bytes = _REMOTE_BUFFER_BYTES if "://" in file.path else _BUFFER_BYTES
    with open_input(file.path) as stream:
        parquet = pq.ParquetFile(stream, buffer_size=buffer_bytes)
        metadata = parquet.metadata
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        row_bytes = sum(group.total_byte_size for group in groups) // max(1, metadata.num_rows)
        batch_rows = max(1, block_bytes // max(1, row_bytes))
        next_row = 0
        for batch in parquet.iter_batches(batch_rows, columns=columns, use_threads=False):
            rows = np.arange(next_row, next_row + len(batch), dtype=np.int64)
            next_row += len(batch)
            yield Block({name: batch[name] for name in columns}, rows)
