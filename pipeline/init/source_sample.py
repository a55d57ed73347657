"""Looks into files whose columns nobody has declared yet."""

import csv
import difflib
import glob
import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from components.interactions.rows import column_types
from components.interactions.sources.block import READ_ERRORS
from components.interactions.sources.files import detect_format
from components.interactions.sources.tfrecord import (
    FeatureKind,
    FrameError,
    decode_block,
    feature_kinds,
    first_records,
    open_records,
    read_records,
)
from components.interactions.spans.pattern import query_of
from pipeline.errors import InitError

# Enough to tell kinds apart; ingestion and the schema read everything.
SAMPLE_ROWS = 500_000
_BLOCK_BYTES = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class SourceSample:
    """The first rows of a file or of a glob's files.

    Attributes:
        role: The command's option without dashes: interactions, candidates or queries.
        pattern: As given, made absolute.
        delimiter: Of CSV files; None: of another format.
        table: The rows; CSV columns are strings, an empty one is null.
        is_complete: Whether these are all rows.
        files: That match the pattern.
    """

    role: str
    pattern: Path
    delimiter: str | None
    table: pl.DataFrame
    is_complete: bool
    files: tuple[str, ...] = ()

    def require(self, column: str, option: str) -> None:
        """Checks that a column is there.

        Raises:
            InitError: It is not; the message names the nearest one.
        """
        if column in self.table.columns:
            return
        nearest = difflib.get_close_matches(column, self.table.columns, n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise InitError(
            f"{option}: {self.pattern} has no column {column!r}{hint} Its columns: "
            f"{', '.join(self.table.columns)}"
        )


def read_sample(role: str, pattern: str, max_rows: int = SAMPLE_ROWS) -> SourceSample:
    """Reads the first rows of the files that match a pattern.

    Raises:
        InitError: No file matches, it holds no rows, or it is not CSV, Parquet or TFRecord.
    """
    if query_of(pattern) is not None:
        raise InitError(f"--{role}: is a query; export some of its rows to a file for the draft")
    path = Path(pattern).expanduser().absolute()
    files = sorted(file for file in glob.glob(str(path), recursive=True) if Path(file).is_file())
    if not files:
        raise InitError(f"--{role}: there is no file {pattern}")
    delimiter: str | None = None
    try:
        formats = {detect_format(file) for file in files}
        if formats == {"parquet"}:
            table = pl.scan_parquet(files).head(max_rows + 1).collect()
        elif formats == {"csv"}:
            table, delimiter = _read_csv(role, files, max_rows + 1)
        elif formats == {"tfrecord"}:
            table = _read_tfrecord(files, max_rows + 1)
        else:
            raise InitError(
                f"--{role}: {pattern} must match only CSV files (.csv, .csv.gz), only Parquet "
                "files (.parquet, .pq) or only TFRecord files"
            )
    except (pl.exceptions.PolarsError, FrameError, UnicodeDecodeError, *READ_ERRORS) as error:
        raise InitError(f"--{role}: {pattern} cannot be read: {error}") from error
    if table.is_empty():
        raise InitError(f"--{role}: {pattern} holds no rows")
    is_complete = table.height <= max_rows
    return SourceSample(role, path, delimiter, table.head(max_rows), is_complete, tuple(files))


def count_rows(sample: SourceSample, column: str) -> tuple[int, int]:
    """Returns how many rows all files hold, and about how many values of a column.

    They are read as a stream, ten million rows in two seconds.
    """
    counted = [pl.len(), pl.col(column).approx_n_unique().alias("values")]
    try:
        if sample.delimiter is None:
            rows = pl.scan_parquet(list(sample.files))
        else:
            rows = pl.scan_csv(
                list(sample.files),
                separator=sample.delimiter,
                infer_schema=False,
                truncate_ragged_lines=True,
                encoding="utf8-lossy",
            )
        [(number, values)] = rows.select(counted).collect(engine="streaming").rows()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InitError(f"--{sample.role}: {sample.pattern} cannot be read: {error}") from error
    return int(number), int(values)


def _read_csv(role: str, files: list[str], num_rows: int) -> tuple[pl.DataFrame, str]:
    tables: list[pl.DataFrame] = []
    delimiter = ","
    for file in files:
        left = num_rows - sum(table.height for table in tables)
        if left <= 0:
            break
        line = _first_line(file)
        if not line:
            continue
        if not tables:
            delimiter = max(_DELIMITERS, key=line.count)
        # polars leaves doubled quotes in names as they are.
        names = next(csv.reader([line], delimiter=delimiter))
        if len(set(names)) < len(names):
            raise InitError(f"--{role}: {file} has several columns of one name: {', '.join(names)}")
        table = pl.read_csv(
            file,
            separator=delimiter,
            infer_schema=False,
            n_rows=left,
            new_columns=names,
            # Rows and bytes that do not fit are ingestion's to judge, by `ingest.bad_rows`.
            truncate_ragged_lines=True,
            encoding="utf8-lossy",
        )
        if tables and set(table.columns) != set(tables[0].columns):
            raise InitError(f"--{role}: {file} and {files[0]} differ in their columns")
        tables.append(table)
    return (pl.concat(tables, how="diagonal") if tables else pl.DataFrame()), delimiter


def _read_tfrecord(files: list[str], num_rows: int) -> pl.DataFrame:
    records: list[bytes] = []
    kinds: dict[str, FeatureKind] = {}
    for file in files:
        if os.path.getsize(file) and len(records) < num_rows:
            kinds = {**feature_kinds(first_records(file)), **kinds}
            with open_records(file) as stream:
                for some in read_records(stream, _BLOCK_BYTES):
                    records += some
                    if len(records) >= num_rows:
                        break
    block = decode_block(records[:num_rows], 0, kinds)
    # Bytes that are no text are ingestion's to judge.
    return pl.DataFrame({name: _readable(values) for name, values in block.columns.items()})


def _readable(values: Any) -> Any:
    if pa.types.is_list(values.type):
        return pa.ListArray.from_arrays(values.offsets, _readable(values.values))
    return column_types.text(values).array if pa.types.is_binary(values.type) else values


def _first_line(file: str) -> str:
    open_text: Any = gzip.open if file.lower().endswith(".gz") else open
    with open_text(file, "rt", encoding="utf-8-sig", errors="replace") as stream:
        return str(stream.readline()).rstrip("\r\n")
