"""How one ingestion is laid out: its files, its buckets, its temporary folder."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from components.interactions.config import SOURCES, IngestConfig, Source
from components.interactions.sources.columns import FILE, ROW
from components.interactions.sources.files import SourceFile


@dataclass(frozen=True)
class Sizing:
    """What bounds the memory of a worker.

    Attributes:
        block_bytes: How much of a file is in memory at once.
        bucket_bytes: How much CSV a bucket stands for; a bucket is in memory as a whole. A single
            query with more events than this makes its bucket as large.
        batch_events: How many events are encoded at once.
    """

    # With these, 1, 4 and 16 million ratings (20, 82 and 330 MB of CSV) in one process need 160,
    # 202 and 222 MB beyond the imports.
    block_bytes: int = 16 << 20
    bucket_bytes: int = 32 << 20
    batch_events: int = 100_000


@dataclass(frozen=True)
class IngestPlan:
    """What every worker knows.

    Attributes:
        config: The settings.
        files: The input, in order.
        num_buckets: By source; interactions and queries share theirs.
        spill_dir: Where temporary files go.
        sizing: What bounds memory.
    """

    config: IngestConfig
    files: tuple[SourceFile, ...]
    num_buckets: Mapping[Source, int]
    spill_dir: str
    sizing: Sizing

    def id_key(self, source: Source) -> str:
        """Returns the column whose hash chooses the bucket of a row."""
        spec = self.config.spec
        return spec.candidate_id if source == "candidates" else spec.query_id


def make_plan(
    config: IngestConfig, files: tuple[SourceFile, ...], spill_dir: str, sizing: Sizing
) -> IngestPlan:
    """Returns a plan with as many buckets as the size of the input asks for."""
    csv_bytes = dict.fromkeys(SOURCES, 0)
    for file in files:
        csv_bytes[file.source] += file.csv_bytes
    by_query = _ceil(csv_bytes["interactions"] + csv_bytes["queries"], sizing.bucket_bytes)
    # Distinct ids of events come on top of the catalogue; they are a fraction of the events.
    by_candidate = _ceil(
        csv_bytes["candidates"] + csv_bytes["interactions"] // 8, sizing.bucket_bytes
    )
    return IngestPlan(
        config,
        files,
        {"interactions": by_query, "queries": by_query, "candidates": by_candidate},
        spill_dir,
        sizing,
    )


def _ceil(amount: int, unit: int) -> int:
    return max(1, -(-amount // unit))


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
