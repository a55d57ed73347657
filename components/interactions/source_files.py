"""Finds the input files on any Beam filesystem and holds their headers against the config."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.interactions.config import IngestConfig
from components.interactions.errors import (
    ColumnError,
    NoInputError,
    QueryError,
    UnreadableFileError,
)
from components.interactions.file_format import FileFormat, format_of
from components.interactions.input_stream import READ_ERRORS, open_input
from components.interactions.physical_lines import csv_records
from components.interactions.query_fingerprint import query_fingerprint
from components.interactions.source_columns import (
    SOURCES,
    ColumnKind,
    Source,
    source_columns,
)
from components.interactions.source_query import query_of
from components.interactions.spans import choose_spans
from components.interactions.tfrecord_blocks import (
    ARROW_TYPES,
    NUM_FIRST_RECORDS,
    FeatureKind,
    feature_kinds,
    first_records,
)
from components.interactions.tfrecord_frames import FrameError, is_gzipped

# Bytes of CSV that a byte of a compressed file stands for, roughly; only sizes buckets.
_COMPRESSED_EXPANSION = 4
# Bytes of TFRecord for a byte of CSV, roughly: every Example names its features.
_TFRECORD_EXPANSION = 4
_NUM_SHOWN = 5
_HASH_BLOCK_BYTES = 1 << 20
_AS_IS = CompressionTypes.UNCOMPRESSED


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
    return NoInputError(f"`data.{source}`: not a single row of data in {names}{more}")


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
        raise QueryError(f"`data.{source}` is a query, which only a run executes")
    try:
        (matched,) = FileSystems.match([pattern])
    except (BeamIOError, ValueError) as error:
        raise NoInputError(f"`data.{source}`: {pattern} cannot be listed: {error}") from error
    found = [(entry.path, entry.size_in_bytes, None) for entry in matched.metadata_list]
    if not found:
        raise NoInputError(f"`data.{source}`: no file matches {pattern}")
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
                f"{path} cannot be read as {file_format}: {error}; `data.format` chooses another "
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


def _check_types(config: IngestConfig, source: Source, path: str, schema: pa.Schema) -> None:
    for column in source_columns(config, source):
        position = schema.get_field_index(column.column)
        if position >= 0 and not _fits(schema.field(position).type, column.kind):
            raise ColumnError(
                f"{path}: column {column.column!r} is {schema.field(position).type}, which cannot "
                f"be read as {column.kind}"
            )


def _check_kinds(
    config: IngestConfig, source: Source, path: str, kinds: Mapping[str, FeatureKind]
) -> None:
    schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
    _check_types(config, source, path, schema)
    for column in source_columns(config, source):
        if column.kind == "time" and kinds.get(column.column) == "float":
            raise ColumnError(
                f"{path}: column {column.column!r} is float, whose 24 bits round the seconds of "
                "today to minutes; write times as int64 or bytes"
            )


def _fits(arrow_type: pa.DataType, kind: ColumnKind) -> bool:
    types = pa.types
    if types.is_dictionary(arrow_type):
        return _fits(arrow_type.value_type, kind)
    textual = (
        types.is_string(arrow_type)
        or types.is_large_string(arrow_type)
        or types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_null(arrow_type)
    )
    if textual or types.is_integer(arrow_type):
        return True
    inexact = types.is_floating(arrow_type) or types.is_decimal(arrow_type)
    if kind in ("rating", "number"):
        return bool(inexact or types.is_boolean(arrow_type))
    moment = types.is_timestamp(arrow_type) or types.is_date(arrow_type)
    if kind == "time":
        return bool(inexact or moment)
    if kind not in ("categorical", "text"):
        return False
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        value_type = arrow_type.value_type
        return not types.is_nested(value_type) and _fits(value_type, kind)
    # What Arrow can write as text.
    written = moment or types.is_time(arrow_type) or types.is_boolean(arrow_type)
    return bool(written or (inexact and not types.is_float16(arrow_type)))
