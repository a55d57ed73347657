"""Separate good rows from bad ones, and remove rows that repeat an ID."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import IngestConfig
from components.interactions.rows import column_types, times
from components.interactions.rows.values import Values, text
from components.interactions.sources.block import CONFLICT, BadRow, Block, show_value
from components.interactions.sources.columns import FILE, LINE, SourceColumn, source_columns
from components.interactions.sources.files import DEFAULT_BLOCK_BYTES, SourceFile, read_blocks
from models.features.spec import RATING_KEY

BAD_ROWS_SCHEMA = pa.schema(
    [
        (FILE, pa.int32()),
        (LINE, pa.int64()),
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
    ]
)
_SHOWN_CHARACTERS = 200


def read_rows(
    config: IngestConfig, file: SourceFile, block_bytes: int = DEFAULT_BLOCK_BYTES
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the good and the bad rows of each block of a file; see `check_rows`.

    Raises:
        UnreadableFileError: The file is damaged or does not have the expected format.
    """
    columns = source_columns(config, file.source)
    names = list(dict.fromkeys(column.column for column in columns))
    data = config.data
    for block in read_blocks(file, names, block_bytes):
        yield check_rows(block, file.index, columns, data.timestamp_unit, data.missing_values)


def check_rows(
    block: Block,
    file_index: int,
    columns: Sequence[SourceColumn],
    unit: str,
    missing_values: Sequence[str] = (),
) -> tuple[pa.Table, pa.Table]:
    """Convert a block to typed columns and separate its bad rows.

    A row with several invalid values is reported once, for the first column in `columns`.

    Returns:
        The good rows in columns named by their keys, and the bad rows in `BAD_ROWS_SCHEMA`. Both
        are in file order.
    """
    good = np.ones(len(block.lines), bool)
    values: dict[str, Any] = {}
    bad = list(block.malformed)
    for column in columns:
        raw = block.columns[column.column]
        converted = _convert(raw, column, unit, block.unwraps_lists, missing_values)
        values[column.key] = converted.array
        for reason, mask in converted.faults:
            found = np.flatnonzero(mask & good)
            good[found] = False
            bad += [
                BadRow(line, column.column, show_value(value), reason)
                for line, value in zip(
                    block.lines[found].tolist(), raw.take(pa.array(found)).to_pylist(), strict=True
                )
            ]
    file_indices = np.full(len(good), file_index, np.int32)
    table = pa.table({**values, FILE: pa.array(file_indices), LINE: pa.array(block.lines)})
    if not good.all():
        table = table.filter(pa.array(good))
    return table, _bad_rows((file_index, row) for row in bad)


def rated_high_enough(events: pa.Table, min_rating: float | None) -> pa.Table:
    """Return the events rated at least `min_rating`, or all events if it is None."""
    if min_rating is None:
        return events
    # Compare as float32: the float64 4.1 is greater than the 4.1 in a float32 column.
    return events.filter(pc.greater_equal(events[RATING_KEY], pa.scalar(min_rating, pa.float32())))


def deduplicate_rows(rows: pa.Table, id_key: str, id_column: str) -> tuple[pa.Table, int, pa.Table]:
    """Separate the rows of a catalogue, or of queries, by whether they repeat an ID.

    Returns:
        The first row of each ID, the number of later rows that equal it, and the other later rows
        in `BAD_ROWS_SCHEMA`.
    """
    rows = rows.combine_chunks()
    codes = np.asarray(rows[id_key].combine_chunks().dictionary_encode().indices)
    _, firsts = np.unique(codes, return_index=True)
    is_first = np.zeros(len(codes), bool)
    is_first[firsts] = True
    later = np.flatnonzero(~is_first)
    originals = firsts[codes[later]]
    differs = np.zeros(len(later), bool)
    for key in rows.schema.names:
        if key not in (id_key, FILE, LINE):
            mine, first = (rows[key].take(pa.array(indices)) for indices in (later, originals))
            unequal = pc.not_equal(mine, first).fill_null(False)
            one_null = pc.xor(pc.is_null(mine), pc.is_null(first))
            differs |= pc.or_(unequal, one_null).to_numpy()
    conflicts = rows.select([FILE, LINE, id_key]).take(pa.array(later[differs]))
    files, lines, ids = (column.to_pylist() for column in conflicts.columns)
    bad = (BadRow(line, id_column, i, CONFLICT) for line, i in zip(lines, ids, strict=True))
    return (
        rows.filter(pa.array(is_first)),
        int((~differs).sum()),
        _bad_rows(zip(files, bad, strict=True)),
    )


def _convert(
    raw: Any,
    column: SourceColumn,
    unit: str,
    unwraps_lists: bool,
    missing_values: Sequence[str] = (),
) -> Values:
    if column.dimension is not None:
        return column_types.vector(raw, column.dimension)
    if missing_values:
        separator = None if column.list_format else column.separator
        raw = column_types.without_words(raw, missing_values, separator)
    if column.kind == "text":
        return text(raw)
    if column.kind == "categorical":
        return column_types.categorical(
            raw,
            column.separator,
            unwraps_lists=unwraps_lists,
            list_format=column.list_format,
            missing_values=missing_values,
        )
    if pa.types.is_list(raw.type):
        single = column_types.single(raw)
        values = _convert(single.array, column, unit, unwraps_lists)
        return Values(values.array, (*single.faults, *values.faults))
    if column.kind in ("id", "event_type"):
        return column_types.identifier(raw, column.normalizations)
    if column.kind == "time":
        return times.time(raw, unit)
    if column.kind == "datetime":
        return times.optional_seconds(raw, unit)
    return column_types.number(raw, column.number_format, required=column.kind == "rating")


def _bad_rows(rows: Iterable[tuple[int, BadRow]]) -> pa.Table:
    """Return bad rows, given with the index of their file, in `BAD_ROWS_SCHEMA`."""
    entries = [
        (file, bad.line, bad.column, bad.value[:_SHOWN_CHARACTERS], bad.reason)
        for file, bad in rows
    ]
    columns = zip(*sorted(entries, key=lambda entry: entry[:2]), strict=True)
    return pa.table(list(columns) or [()] * len(BAD_ROWS_SCHEMA), schema=BAD_ROWS_SCHEMA)
