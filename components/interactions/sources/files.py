"""Find the files of each source, inspect their columns, and read them in blocks of rows."""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.files import is_remote, open_to_read
from components.interactions.config import (
    SOURCE_SETTINGS,
    SOURCES,
    FileFormat,
    IngestConfig,
    Source,
    query_fingerprint,
)
from components.interactions.errors import NoInputError, QueryError, UnreadableFileError
from components.interactions.sources import jsonl
from components.interactions.sources.block import (
    READ_ERRORS,
    Block,
    is_compressed,
    is_record_head,
    open_input,
)
from components.interactions.sources.columns import (
    check_columns,
    check_same_columns,
    source_columns,
)
from components.interactions.sources.csv import read_csv_blocks
from components.interactions.sources.csv_dialect import Dialect, PlainFiles, inspect_csv
from components.interactions.sources.tfrecord import (
    NUM_FIRST_RECORDS,
    FrameError,
    read_schema,
    read_tfrecord_blocks,
)
from components.interactions.spans.choice import choose_spans, join_first
from components.interactions.spans.pattern import ListedFile, list_files, query_of

DEFAULT_BLOCK_BYTES = 16 << 20
# Any of them may be followed by `.gz` or `.bz2`.
_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_PARQUET_MAGIC = b"PAR1"
# The first bytes decide the dialect of a CSV file: at most so many of a file, and of all files.
_DIALECT_BYTES = 4 << 20
_DIALECT_BYTES_OF_ALL = 256 << 20
_HEAD_BYTES = 4096
# Formats that repeat the names of the columns in each row. The first rows decide the columns.
_NAMED_VALUES = ("jsonl", "tfrecord")
# Approximate sizes relative to plain CSV, used only for the number of buckets.
_COMPRESSED_EXPANSION = 4
_NAMED_VALUES_EXPANSION = 4
# Number of bytes of each Parquet column to read at once, instead of a whole row group. It is larger
# for object stores, whose requests have a high fixed cost.
_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20
_HASH_BLOCK_BYTES = 1 << 20
_READ_THREADS = 8


@dataclass(frozen=True)
class SourceFile:
    """One input file.

    Attributes:
        index: Index among the files of the source, in name order.
        name: Path relative to the last folder without wildcards, for messages and reports.
        size_bytes: Size as stored, before decompression.
        header: Names of the columns; empty if the file has no rows.
        schema: Types of the columns; None for CSV.
        dialect: How the values of a CSV file are written.
    """

    source: Source
    index: int
    path: str
    name: str
    size_bytes: int
    format: FileFormat = "csv"
    header: tuple[str, ...] = ()
    span: int | None = None
    schema: pa.Schema | None = None
    is_compressed: bool = False
    dialect: Dialect = field(default_factory=Dialect)

    @property
    def csv_bytes(self) -> int:
        """Approximate size as plain CSV, in bytes."""
        size = self.size_bytes * (_COMPRESSED_EXPANSION if self.is_compressed else 1)
        return size // _NAMED_VALUES_EXPANSION if self.format in _NAMED_VALUES else size


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
        found = inspect_files(source, pattern, matched, *config.data.reading(source))
        if not any(file.header for file in found):
            raise no_rows(source, found)
        columns = source_columns(config, source)
        for file in found:
            if file.header:
                seen = f" (in its first {NUM_FIRST_RECORDS:,} records)"
                name = file.name + seen * (file.format in _NAMED_VALUES)
                check_columns(name, file.header, file.schema, columns)
        check_same_columns({file.name: file.header for file in found if file.header})
        files += found
    return tuple(files)


def inspect_files(
    source: Source,
    pattern: str,
    matched: Sequence[tuple[str, int, int | None]],
    configured: FileFormat | Literal["auto"],
    delimiter: str | None,
) -> list[SourceFile]:
    """Detect the formats of files, and read their columns.

    `matched` has the path, the size in bytes, and the span number or None of each file. The
    delimiter of each CSV file is detected if it is None.

    Raises:
        UnreadableFileError: A file does not have its format, or the format cannot be detected.
    """
    num_bytes = min(_DIALECT_BYTES, max(_HEAD_BYTES, _DIALECT_BYTES_OF_ALL // len(matched)))
    plain = PlainFiles()

    def inspect(file: SourceFile) -> SourceFile:
        return _inspect(file, configured, delimiter, num_bytes, plain) if file.size_bytes else file

    files = [
        SourceFile(source, index, path, _below_fixed_folder(path, pattern), size, span=span)
        for index, (path, size, span) in enumerate(matched)
    ]
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        found = list((threads.map if is_remote(pattern) else map)(inspect, files))
    # The names in the headers of CSV files may differ in case.
    headers = [file.header for file in found if file.header and file.format == "csv"]
    spellings = {name.lower(): name for name in headers[0]} if headers else {}
    if headers and len(spellings) == len(headers[0]):
        found = [_respelt(file, spellings) if file.format == "csv" else file for file in found]
    # An empty file gets the format of the others.
    usual = next((file.format for file in found if file.header), None)
    found = [file if file.header else replace(file, format=usual or file.format) for file in found]
    # Each file with named values gets the columns of all; one that a row lacks is read as empty.
    named = [file for file in found if file.format in _NAMED_VALUES and file.schema]
    shared = {field.name: field for file in reversed(named) for field in file.schema or ()}
    for file in named:
        fields = shared | {field.name: field for field in file.schema or ()}
        schema = pa.schema(fields.values())
        found[file.index] = replace(file, header=tuple(sorted(fields)), schema=schema)
    return found


def _detect_format(path: str, head: bytes) -> FileFormat:
    """Return the format of a file by its first bytes and its suffix.

    Raises:
        UnreadableFileError: The format cannot be detected.
    """
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    if is_record_head(head):
        return "tfrecord"
    suffix = os.path.splitext(path.lower().removesuffix(".gz").removesuffix(".bz2"))[1]
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if head.lstrip().startswith(b"{"):
        return "jsonl"
    if not head or any(delimiter in head for delimiter in b",;\t|"):
        return "csv"
    raise UnreadableFileError(
        f"{path}: the suffix does not tell the format (known: {', '.join(_SUFFIXES)}), nor do the "
        "first bytes; select the files with a pattern such as *.csv, or set `format` to csv, "
        "jsonl, parquet or tfrecord"
    )


def no_rows(source: Source, files: Sequence[SourceFile]) -> NoInputError:
    """Return the error for a source whose files have no rows."""
    names = join_first([file.path for file in files])
    return NoInputError(
        f"`{SOURCE_SETTINGS[source]}`: there is not a single row of data in {names}"
    )


def fingerprint(config: IngestConfig, sources: Sequence[Source] = SOURCES) -> str:
    """Return a hash of names, sizes and times of modification of the input files, for cache keys.

    Moving the whole folder does not change the hash; renaming or rewriting a file does. Contents
    replace the times in an object store that does not have them. For a BigQuery query,
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
        listed = list_files(pattern)
        matched = _match(config, source, pattern, listed)
        modified = {file.path: file.modified_ns for file in listed}

        def content_of(path: str, modified: Mapping[str, int] = modified) -> str | int:
            return modified.get(path) or _content_hash(path)

        with ThreadPoolExecutor(_READ_THREADS) as threads:
            contents = (threads.map if is_remote(pattern) else map)(
                content_of, [m[0] for m in matched]
            )
            for (path, size, _), content in zip(matched, contents, strict=True):
                name = _below_fixed_folder(path, pattern)
                total.update(f"{source}\0{name}\0{size}\0{content}\n".encode())
    return total.hexdigest()


def _content_hash(path: str) -> str:
    content = hashlib.blake2b(digest_size=16)
    try:
        with open_to_read(path) as stream:
            while block := stream.read(_HASH_BLOCK_BYTES):
                content.update(block)
    except READ_ERRORS as error:
        raise UnreadableFileError(f"{path} cannot be read: {error}") from error
    return content.hexdigest()


def read_blocks(
    file: SourceFile, columns: Sequence[str], block_bytes: int = DEFAULT_BLOCK_BYTES
) -> Iterator[Block]:
    """Yield the rows of a file in order, in blocks of about `block_bytes`.

    Raises:
        UnreadableFileError: The file is damaged or does not have its format.
    """
    if file.format == "csv":
        return read_csv_blocks(file.path, file.header, columns, file.dialect, block_bytes)
    if file.format == "jsonl":
        return jsonl.read_jsonl_blocks(file.path, columns, block_bytes)
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


def _match(
    config: IngestConfig, source: Source, pattern: str, listed: Sequence[ListedFile] | None = None
) -> list[tuple[str, int, int | None]]:
    """Return the path, size in bytes and span number of each file, in name order.

    `listed` has the files that match the pattern, if they are known.
    """
    chosen = () if config.chosen_spans is None else config.chosen_spans.of(source)
    if chosen:
        return sorted((f.path, f.size_bytes, span.span) for span in chosen for f in span.files)
    if query_of(pattern) is not None:
        raise QueryError(f"`{SOURCE_SETTINGS[source]}` is a query, which only a run executes")
    found = list_files(pattern) if listed is None else listed
    if not found:
        raise NoInputError(f"`{SOURCE_SETTINGS[source]}`: no file matches {pattern}")
    return [(file.path, file.size_bytes, None) for file in found]


def _below_fixed_folder(path: str, pattern: str) -> str:
    fixed = min((pattern.find(sign) for sign in "*?[{" if sign in pattern), default=len(pattern))
    return path[pattern.rfind("/", 0, fixed) + 1 :]


def _respelt(file: SourceFile, spellings: Mapping[str, str]) -> SourceFile:
    header = tuple(spellings.get(name.lower(), name) for name in file.header)
    return file if header == file.header else replace(file, header=header)


def _inspect(
    file: SourceFile,
    configured: FileFormat | Literal["auto"],
    delimiter: str | None,
    num_bytes: int,
    plain: PlainFiles,
) -> SourceFile:
    """Read the columns of a file, and return the file with them and with its format."""
    schema, dialect, found = None, Dialect(), configured
    try:
        if plain:  # Reads the file once; the detection below seeks and reads several times.
            with open_to_read(file.path) as stream:
                known = plain.find(file.path, stream.read(num_bytes))
            if known:
                return replace(file, header=tuple(known[1]), dialect=known[0])
        with open_input(file.path) as stream:
            head = stream.read(_HEAD_BYTES)
            stream.seek(0)
            found = _detect_format(file.path, head) if configured == "auto" else configured
            if found == "csv":
                dialect, names = inspect_csv(file.path, stream, delimiter, num_bytes, plain)
            else:
                if found == "jsonl":
                    schema = jsonl.read_types(stream, NUM_FIRST_RECORDS)
                else:
                    schema = (pq.read_schema if found == "parquet" else read_schema)(stream)
                names = schema.names
            return replace(
                file,
                format=found,
                header=tuple(names),
                schema=schema,
                is_compressed=found == "parquet" or is_compressed(stream),
                dialect=dialect,
            )
    except (pa.ArrowException, FrameError, *READ_ERRORS) as error:
        shown = f"{file.path} cannot be read"
        if found != "auto":
            shown += f" as {found}"
        if isinstance(error, EOFError | zlib.error):
            raise UnreadableFileError(f"{shown}: {error}; write the file again") from error
        hint = "" if found == "auto" else "; `format` selects another format"
        raise UnreadableFileError(f"{shown}: {error}{hint}") from error
