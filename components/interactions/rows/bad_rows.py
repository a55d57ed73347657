"""Find the line numbers of bad rows, report the rows, and write them to `rejected.parquet`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.interactions.buckets import Segment, new_path, read_segment
from components.interactions.config import Source
from components.interactions.errors import BadRowsError
from components.interactions.sources.block import open_input
from components.interactions.sources.columns import FILE, ROW
from components.interactions.sources.csv import LineLocator
from components.interactions.sources.files import SourceFile

REJECTED_FILE = "rejected.parquet"
REJECTED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
    ]
)
_NUM_SHOWN = 5


@dataclass(frozen=True)
class FileRejects:
    """Bad rows of a file: counts by reason, the first few, and the path of all, or None."""

    source: Source
    index: int
    counts: Mapping[str, int]
    first: tuple[Mapping[str, object], ...]
    path: str | None


def locate(
    file: SourceFile, segments: Sequence[Segment], delimiter: str, folder: str | None
) -> FileRejects:
    """Return a file's bad rows with line numbers, or with row numbers in Parquet and TFRecord.

    `segments` are sorted tables in `BAD_ROWS_SCHEMA`. All rows are written to a Parquet file in
    `folder`; if it is None, only the first few are located.
    """
    counts: Counter[str] = Counter()
    first: list[Mapping[str, object]] = []
    path = None if folder is None else new_path(folder)
    if path is None:
        for rows in _in_row_order(segments):
            counts.update(rows["reason"].to_pylist())
            wanted = rows.slice(0, _NUM_SHOWN - len(first))
            if len(wanted):
                first += next(_with_lines(file, iter([wanted]), delimiter)).to_pylist()
        return FileRejects(file.source, file.index, dict(counts), tuple(first), None)
    with files.open_to_write(path) as stream, pq.ParquetWriter(stream, REJECTED_SCHEMA) as writer:
        for located in _with_lines(file, _in_row_order(segments), delimiter):
            writer.write_table(located)
            counts.update(located["reason"].to_pylist())
            first += located.slice(0, _NUM_SHOWN - len(first)).to_pylist()
    return FileRejects(file.source, file.index, dict(counts), tuple(first), path)


def write_rejected(rejects: Sequence[FileRejects], path: str) -> None:
    """Write the bad rows of all files to one Parquet file, which may be empty."""
    with files.open_to_write(path) as stream, pq.ParquetWriter(stream, REJECTED_SCHEMA) as writer:
        for found in rejects:
            if found.path is not None:
                with files.open_to_read(found.path) as part:
                    for batch in pq.ParquetFile(part).iter_batches():
                        writer.write_batch(batch)


def count_by_reason(rejects: Sequence[FileRejects]) -> dict[str, int]:
    """Return the number of bad rows by reason, most frequent first."""
    total: Counter[str] = Counter()
    for found in rejects:
        total.update(found.counts)
    return dict(total.most_common())


def bad_rows_error(rejects: Sequence[FileRejects]) -> BadRowsError:
    """Return an error that counts all bad rows and shows the first few.

    `rejects` is in the order of the input.
    """
    counts = count_by_reason(rejects)
    shown = [row for found in rejects for row in found.first][:_NUM_SHOWN]
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    lines = [
        f"  {row['file']} line {row['line']}: "
        + (f"{row['column']} = {row['value']!r}" if row["column"] else f"{row['value']!r}")
        + f" ({row['reason']})"
        for row in shown
    ]
    total = sum(counts.values())
    return BadRowsError(
        f"{total} bad row{'s' if total > 1 else ''} in the input: {reasons}. The first:\n"
        + "\n".join(lines)
        + "\nFix the input, or set `ingest.bad_rows: reject` to skip such rows."
    )


def _in_row_order(segments: Sequence[Segment]) -> Iterator[pa.Table]:
    """Yield tables in row order; only segments that overlap are in memory together."""
    together: list[Segment] = []
    for segment in segments:
        if together and segment.first_row > max(s.last_row for s in together):
            yield _merge(together)
            together = []
        together.append(segment)
    if together:
        yield _merge(together)


def _merge(segments: Sequence[Segment]) -> pa.Table:
    return pa.concat_tables([read_segment(segment) for segment in segments]).sort_by(ROW)


def _with_lines(file: SourceFile, tables: Iterator[pa.Table], delimiter: str) -> Iterator[pa.Table]:
    with open_input(file.path) as stream:
        locator = LineLocator(stream, delimiter) if file.format == "csv" else None
        for table in tables:
            rows = table[ROW].to_pylist()
            lines = [row + 1 if locator is None else locator.line_of(row) for row in rows]
            count = len(table)
            yield pa.table(
                [
                    pa.array([file.source] * count, pa.string()),
                    pa.array([file.name] * count, pa.string()),
                    pa.array(lines, pa.int64()),
                    *(table[name] for name in table.schema.names if name not in (FILE, ROW)),
                ],
                schema=REJECTED_SCHEMA,
            )
