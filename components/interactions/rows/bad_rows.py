"""Store bad rows on disk, report the first of them, and write all to `rejected.parquet`."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import files
from components.interactions.buckets import IngestPlan, read_table, write_table
from components.interactions.config import IngestConfig, Source
from components.interactions.errors import BadRowsError
from components.interactions.rows.missing_words import MISSING_WORDS, missing_values_setting
from components.interactions.sources.block import (
    CONFLICT,
    MIXED_QUOTES,
    NOT_A_NUMBER,
    NOT_IN_FORMAT,
    NOT_UTF8,
)
from components.interactions.sources.columns import FILE, LINE

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
_HINTS = {
    CONFLICT: "If each file is a whole catalogue, write {YYYY}, {MM} and {DD} in the setting, so "
    "that only the newest file is read.",
    MIXED_QUOTES: "Write the quotes in all values either twice or with a backslash.",
    NOT_UTF8: "Convert the file, for example with `iconv -f WINDOWS-1252 -t UTF-8`.",
}


@dataclass(frozen=True)
class StoredBadRows:
    """Some of the bad rows of the file with an index, counted by reason.

    `path` is a table in `REJECTED_SCHEMA`, for `buckets.read_table`.
    """

    source: Source
    index: int
    first_line: int
    path: str
    counts: Mapping[str, int]


def store(plan: IngestPlan, source: Source, bad: pa.Table) -> Iterator[StoredBadRows]:
    """Write the rows of a table in `BAD_ROWS_SCHEMA`, one new table for each file of the source."""
    indices = bad[FILE].unique().to_pylist()
    files_by_index = {f.index: f for f in plan.files if f.source == source} if indices else {}
    for index in indices:
        mine = bad.filter(pc.equal(bad[FILE], index))
        names = (source, files_by_index[index].name)
        repeated = [pa.array([name] * len(mine), pa.string()) for name in names]
        table = pa.table([*repeated, *mine.columns[1:]], schema=REJECTED_SCHEMA)
        path = write_table(table, plan.spill_dir)
        counts = Counter(mine["reason"].to_pylist())
        yield StoredBadRows(source, index, mine[LINE][0].as_py(), path, counts)


def write_rejected(rejects: Sequence[StoredBadRows], path: str) -> None:
    """Write the bad rows of all files to one Parquet file, which may be empty."""
    with files.open_to_write(path) as stream, pq.ParquetWriter(stream, REJECTED_SCHEMA) as writer:
        for found in rejects:
            writer.write_table(read_table(found.path))


def count_by_reason(rejects: Sequence[StoredBadRows]) -> dict[str, int]:
    """Return the number of bad rows by reason, most frequent first."""
    total: Counter[str] = Counter()
    for found in rejects:
        total.update(found.counts)
    return dict(total.most_common())


def hints(reasons: Collection[str]) -> str:
    """Return sentences about fixing bad rows with these reasons, each after a space."""
    return "".join(f" {hint}" for reason, hint in _HINTS.items() if reason in reasons)


def bad_rows_error(rejects: Sequence[StoredBadRows], config: IngestConfig) -> BadRowsError:
    """Return an error that counts all bad rows, given in the order of the input, and shows some."""
    counts = count_by_reason(rejects)
    # Each of them has at least one row.
    tables = [read_table(found.path) for found in rejects[:_NUM_SHOWN]]
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    rows = pa.concat_tables(tables).slice(0, _NUM_SHOWN).to_pylist()
    lines = [
        f"  {row['file']} line {row['line']}: "
        + (f"{row['column']} = {row['value']!r}" if row["column"] else f"{row['value']!r}")
        + f" ({row['reason']})"
        for row in rows
    ]
    total = sum(counts.values())
    known = config.data.missing_values
    not_numbers = {
        row["value"].strip()
        for row in rows
        # A rating is required, so its row would still be bad.
        if row["reason"] in (NOT_A_NUMBER, NOT_IN_FORMAT) and row["source"] != "interactions"
    }
    if words := sorted(not_numbers & MISSING_WORDS - {*known}):
        setting = missing_values_setting([*known, *words])
        lines.append(f"To read such words as missing values, set {setting}.")
    return BadRowsError(
        f"{total} bad row{'s' if total > 1 else ''} in the input: {reasons}. The first:\n"
        + "\n".join(lines)
        + "\nFix the input, or set `ingest.bad_rows: reject` to skip such rows."
        + hints(counts)
    )
