"""Keeps rows on disk between stages: in segments by bucket, found again by their descriptors.

Only descriptors travel through Beam. File names are unique, so a bundle that is run twice leaves
a file that no descriptor names, and nothing else.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from components.interactions.source_columns import FILE, ROW


@dataclass(frozen=True, order=True)
class Segment:
    """Where some rows of one bucket lie; segments sort in the order of the input.

    Attributes:
        file: Index of the input file.
        first_row: Of the rows in it.
        last_row: Of the rows in it.
        path: The spill file.
        offset: In the spill file.
        size_bytes: In the spill file.
        num_rows: How many.
    """

    file: int
    first_row: int
    last_row: int
    path: str
    offset: int
    size_bytes: int
    num_rows: int


def write_segments(
    table: pa.Table, buckets: npt.NDArray[np.int64], folder: str
) -> Iterator[tuple[int, Segment]]:
    """Writes the rows to one new file, a segment a bucket, keeping their order.

    Args:
        table: Rows, with their place in the input where it counts.
        buckets: Of each row [n].
        folder: Where the file goes.

    Yields:
        Each bucket that has rows, and its segment; after the file is complete.
    """
    if not len(table):
        return
    if buckets.min() == buckets.max():
        parts = [(int(buckets[0]), table)]
    else:
        order = np.argsort(buckets, kind="stable")
        ordered = table.take(pa.array(order))
        starts = np.flatnonzero(np.diff(buckets[order], prepend=-1))
        ends = [*starts[1:], len(order)]
        parts = [
            (int(buckets[order[start]]), ordered.slice(start, end - start))
            for start, end in zip(starts, ends, strict=True)
        ]
    path = new_path(folder)
    found: list[tuple[int, Segment]] = []
    offset = 0
    with FileSystems.create(path) as stream:
        for bucket, part in parts:
            content = _encode(part)
            stream.write(content)
            found.append((bucket, _describe(part, path, offset, len(content))))
            offset += len(content)
    yield from found


def read_segment(segment: Segment) -> pa.Table:
    """Returns the rows of a segment."""
    with FileSystems.open(segment.path) as stream:
        stream.seek(segment.offset)
        content = stream.read(segment.size_bytes)
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()


def write_table(table: pa.Table, folder: str) -> str:
    """Writes a table to a new file and returns its path."""
    path = new_path(folder)
    with FileSystems.create(path) as stream:
        stream.write(_encode(table))
    return path


def read_table(path: str) -> pa.Table:
    """Returns a table that `write_table` wrote."""
    with FileSystems.open(path) as stream:
        return pa.ipc.open_stream(pa.py_buffer(stream.read())).read_all()


def new_path(folder: str) -> str:
    """Returns a path in `folder` that nothing else will ever use."""
    path: str = FileSystems.join(folder, uuid.uuid4().hex)
    return path


def _encode(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _describe(part: pa.Table, path: str, offset: int, size_bytes: int) -> Segment:
    if ROW not in part.schema.names:
        return Segment(0, 0, 0, path, offset, size_bytes, len(part))
    file, first, last = part[FILE][0].as_py(), part[ROW][0].as_py(), part[ROW][-1].as_py()
    return Segment(file, first, last, path, offset, size_bytes, len(part))
