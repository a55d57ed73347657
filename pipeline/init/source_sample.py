"""Samples of input files whose columns are not configured yet."""

import difflib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from components.interactions.errors import IngestError, QueryError
from components.interactions.sources import sample
from components.interactions.spans.pattern import query_of
from pipeline.errors import InitError

# Enough to choose the kinds of features; ingestion reads all rows.
SAMPLE_ROWS = 500_000


@dataclass(frozen=True)
class SourceSample:
    """The first rows of one or more input files.

    Attributes:
        role: Name of the input: `interactions`, `candidates` or `queries`.
        pattern: Absolute path or glob.
        delimiter: Delimiter of CSV files, or None for other formats.
        table: The rows. CSV columns are strings, where an empty field is null.
        is_complete: Whether the table contains all rows of all files.
        files: Paths that match the pattern.
    """

    role: str
    pattern: Path
    delimiter: str | None
    table: pl.DataFrame
    is_complete: bool
    files: tuple[str, ...] = ()

    def require(self, column: str, option: str) -> None:
        """Check that a column exists; `option` is the command-line option that names it.

        Raises:
            InitError: The column does not exist; the message suggests the most similar name.
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
    """Read the first rows of the files that match a pattern.

    Raises:
        InitError: No file matches, it has no rows, or it is not CSV, Parquet or TFRecord.
    """
    path = Path(pattern).expanduser().absolute()
    try:
        if query_of(pattern) is not None:
            raise QueryError("a query cannot be sampled; export some of its rows to a file")
        found = sample.read_sample(str(path), max_rows=max_rows)
    except IngestError as error:
        raise InitError(f"--{role}: {error}") from error
    if any("columns of" in reason for reason in found.unusable.values()):
        raise InitError(f"--{role}: {next(iter(found.unusable.values()))}")
    files = tuple(found.files)
    return SourceSample(role, path, found.delimiter, found.table, found.is_complete, files)


def count_rows(source: SourceSample, column: str) -> tuple[int, int]:
    """Return the number of rows in all files, and the number of distinct values of a column.

    Raises:
        InitError: A file cannot be read.
    """
    try:
        return sample.count_rows(str(source.pattern), column)
    except IngestError as error:
        raise InitError(f"--{source.role}: {error}") from error
