"""Reads a file as a stream of columnar blocks, so that memory does not grow with the file."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from components.timeline_example_gen.errors import UnreadableFileError
from components.timeline_example_gen.source_files import SourceFile


@dataclass(frozen=True)
class MisshapenRow:
    """A CSV row with too few or too many values."""

    row: int
    expected: int
    found: int
    text: str


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        columns: Raw values by column name: bytes from CSV, native types from Parquet.
        rows: The row number of each, from 0, counted over the whole file [n].
        misshapen: Rows before the next block that have no place in `columns`.
    """

    columns: dict[str, Any]
    rows: npt.NDArray[np.int64]
    misshapen: list[MisshapenRow] = field(default_factory=list)


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
    try:
        with FileSystems.open(file.path) as stream:
            if file.format == "parquet":
                yield from _read_parquet(stream, columns, block_bytes)
            else:
                yield from _read_csv(stream, columns, delimiter, block_bytes)
    except (pa.ArrowInvalid, EOFError) as error:
        raise UnreadableFileError(
            f"{file.path} cannot be read as {file.format}: {error}. A quote that is never closed "
            "reads like this too"
        ) from error


def _read_csv(stream: Any, columns: list[str], delimiter: str, block_bytes: int) -> Iterator[Block]:
    pending: list[MisshapenRow] = []

    def set_aside(invalid: Any) -> str:
        # Arrow counts records from 1 and the header as the first; blank lines are no records.
        pending.append(
            MisshapenRow(
                invalid.number - 2, invalid.expected_columns, invalid.actual_columns, invalid.text
            )
        )
        return "skip"

    reader = pa_csv.open_csv(
        pa.PythonFile(stream, mode="r"),
        # Without threads Arrow knows the number of an invalid row.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=block_bytes),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=set_aside
        ),
        convert_options=pa_csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.binary()),
            strings_can_be_null=False,
        ),
    )
    next_row = 0
    for batch in reader:
        # Arrow may parse ahead, so the list can hold rows of later blocks.
        rows, misshapen = _number_rows(next_row, batch.num_rows, pending)
        del pending[: len(misshapen)]
        next_row = int(rows[-1]) + 1 if len(rows) else next_row
        yield Block(dict(zip(columns, batch.columns, strict=True)), rows, misshapen)
    if pending:
        empty = {name: pa.array([], pa.binary()) for name in columns}
        yield Block(empty, np.zeros(0, np.int64), list(pending))


def _number_rows(
    first: int, count: int, pending: list[MisshapenRow]
) -> tuple[npt.NDArray[np.int64], list[MisshapenRow]]:
    """Numbers well-formed rows around the misshapen ones between them."""
    misshapen: list[MisshapenRow] = []
    end = first + count
    for row in pending:
        if row.row >= end:
            break
        misshapen.append(row)
        end += 1
    taken = [row.row - first for row in misshapen]
    return np.delete(np.arange(first, end, dtype=np.int64), taken), misshapen


def _read_parquet(stream: Any, columns: list[str], block_bytes: int) -> Iterator[Block]:
    file = pq.ParquetFile(stream)
    # Rows a block: as many as have about its size without compression.
    row_bytes = max(
        1,
        sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        // max(1, file.metadata.num_rows),
    )
    next_row = 0
    for batch in file.iter_batches(
        batch_size=max(1, block_bytes // row_bytes), columns=columns, use_threads=False
    ):
        rows = np.arange(next_row, next_row + batch.num_rows, dtype=np.int64)
        next_row += batch.num_rows
        yield Block(
            {name: batch.column(batch.schema.get_field_index(name)) for name in columns}, rows
        )
