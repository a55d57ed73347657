"""The plan of an ingestion, and its temporary files with rows partitioned into buckets.

The hash of its ID selects the bucket of a row. Each bucket fits into memory. Beam only transfers
descriptors of the temporary files. The file names are unique: if Beam runs a bundle twice, an
unused file remains, but the result is correct.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components import files
from components.interactions.config import SOURCES, IngestConfig, Source
from components.interactions.sources.columns import FILE, LINE
from components.interactions.sources.files import DEFAULT_BLOCK_BYTES, SourceFile

# Paths of tables by source and bucket number; buckets without rows are left out.
BucketPaths = Mapping[Source, Mapping[int, str]]


@dataclass(frozen=True)
class Sizing:
    """Limits on the memory of a worker: what it reads, orders and encodes at once.

    `bucket_bytes` is the approximate size of a bucket in bytes of CSV. A bucket is larger if one of
    its queries has more events than this. `num_buckets` replaces the number of buckets of queries
    that follows from it. `fan_out` is the largest number of segments of a block (`partition.py`).
    """

    # With these defaults, 1, 4 and 16 million ratings (20, 82 and 330 MB of CSV) in one process
    # take 160, 202 and 222 MB of memory in addition to the imports.
    block_bytes: int = DEFAULT_BLOCK_BYTES
    bucket_bytes: int = 32 << 20
    batch_events: int = 100_000
    num_buckets: int | None = None
    fan_out: int = 256


@dataclass(frozen=True)
class IngestPlan:
    """The configuration, input files and bucket counts of an ingestion, sent to each worker."""

    config: IngestConfig
    files: tuple[SourceFile, ...]
    num_buckets: Mapping[Source, int]
    spill_dir: str
    sizing: Sizing

    def id_key(self, source: Source) -> str:
        """Return the ID column that selects the bucket of a row."""
        spec = self.config.spec
        return spec.candidate_id if source == "candidates" else spec.query_id


def make_plan(
    config: IngestConfig, sources: tuple[SourceFile, ...], spill_dir: str, sizing: Sizing
) -> IngestPlan:
    """Return a plan whose number of buckets depends on the size of the input."""
    csv_bytes = dict.fromkeys(SOURCES, 0)
    for file in sources:
        csv_bytes[file.source] += file.csv_bytes
    events = csv_bytes["interactions"]
    by_query = max(1, -(-(events + csv_bytes["queries"]) // sizing.bucket_bytes))
    by_query = sizing.num_buckets or by_query
    # Candidates that occur only in events are added to the catalogue. Their IDs are estimated at
    # an eighth of the size of the events.
    by_candidate = max(1, -(-(csv_bytes["candidates"] + events // 8) // sizing.bucket_bytes))
    num_buckets = dict(zip(SOURCES, (by_query, by_query, by_candidate), strict=True))
    return IngestPlan(config, sources, num_buckets, spill_dir, sizing)


@dataclass(frozen=True, order=True)
class Segment:
    """Part of a temporary file with rows of one bucket; segments sort in the order of the input."""

    file: int
    first_line: int
    path: str
    offset: int
    size_bytes: int


def write_segments(
    table: pa.Table, buckets: npt.NDArray[np.int64], folder: str
) -> Iterator[tuple[int, Segment]]:
    """Write rows to one new file, with one segment per bucket.

    Yields:
        The number and the segment of each bucket that has rows, after the file is complete.
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
    with files.open_to_write(path) as stream:
        for bucket, part in parts:
            file = first = 0
            if LINE in part.schema.names:
                file, first = part[FILE][0].as_py(), part[LINE][0].as_py()
            offset = stream.tell()
            stream.write(_encode(part))
            segment = Segment(file, first, path, offset, stream.tell() - offset)
            found.append((bucket, segment))
    yield from found


def read_segment(segment: Segment) -> pa.Table:
    """Return the rows of a segment."""
    with files.open_to_read(segment.path) as stream:
        stream.seek(segment.offset)
        content = stream.read(segment.size_bytes)
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()


def write_table(table: pa.Table, folder: str) -> str:
    """Write a table to a new file and return its path."""
    path = new_path(folder)
    files.write_bytes(path, _encode(table))
    return path


def read_table(path: str) -> pa.Table:
    """Read a table from a file that `write_table` wrote."""
    return pa.ipc.open_stream(pa.py_buffer(files.read_bytes(path))).read_all()


def new_path(folder: str) -> str:
    """Return a unique path in a folder."""
    return f"{folder}/{uuid.uuid4().hex}"


def _encode(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
