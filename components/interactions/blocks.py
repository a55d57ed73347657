"""Reads a file as a stream of columnar blocks, so that memory does not grow with the file."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.interactions.block import Block
from components.interactions.csv_blocks import read_csv_blocks
from components.interactions.errors import UnreadableFileError
from components.interactions.input_stream import open_input
from components.interactions.source_files import SourceFile
from components.interactions.tfrecord_blocks import read_tfrecord_blocks

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
        yield from read_csv_blocks(file, columns, delimiter, block_bytes)
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
