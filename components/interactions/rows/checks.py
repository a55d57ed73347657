"""Parts the rows of a block into those that fit the declaration and those that do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.rows import column_types
from components.interactions.rows.column_types import TimestampUnit, Values
from components.interactions.rows.reasons import CONFLICT
from components.interactions.sources.block import Block, MisshapenRow, show_value
from components.interactions.sources.columns import FILE, ROW, SourceColumn
from models.features.spec import RATING_KEY

BAD_ROWS_SCHEMA = pa.schema(
    [
        (FILE, pa.int32()),
        (ROW, pa.int64()),
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
    ]
)
# A rejected value is shown, not archived.
_SHOWN_CHARACTERS = 200


def check_rows(
    block: Block, file_index: int, columns: Sequence[SourceColumn], unit: TimestampUnit
) -> tuple[pa.Table, pa.Table]:
    """Converts a block and sets bad rows aside; a row is bad for its first bad column only.

    Args:
        block: Raw values.
        file_index: Marks each row in the tables.
        columns: What the columns must be.
        unit: Of times.

    Returns:
        The good rows by column key, and the bad rows in `BAD_ROWS_SCHEMA`, both in file order.
    """
    good = np.ones(len(block.rows), bool)
    values: dict[str, Any] = {}
    bad = [_misshapen_rows(file_index, block.misshapen)] if block.misshapen else []
    for column in columns:
        raw = block.columns[column.column]
        converted = _convert(raw, column, unit, block.is_one_plain)
        values[column.key] = converted.array
        for reason, mask in converted.faults:
            places = np.flatnonzero(mask & good)
            if len(places):
                good[places] = False
                shown = raw.take(pa.array(places)).to_pylist()
                bad.append(_bad_rows(file_index, block.rows[places], column.column, shown, reason))
    table = pa.table(
        {
            **values,
            FILE: pa.array(np.full(len(good), file_index, np.int32)),
            ROW: pa.array(block.rows),
        }
    )
    if not good.all():
        table = table.filter(pa.array(good))
    if not bad:
        return table, BAD_ROWS_SCHEMA.empty_table()
    return table, pa.concat_tables(bad).sort_by(ROW)


def conflicting_rows(rows: pa.Table, id_key: str, column: str) -> pa.Table:
    """Returns rows of a spilled table as bad rows that contradict an earlier one."""
    return pa.table(
        [
            rows[FILE],
            rows[ROW],
            pa.array([column] * len(rows), pa.string()),
            rows[id_key].cast(pa.string()),
            pa.array([CONFLICT] * len(rows), pa.string()),
        ],
        schema=BAD_ROWS_SCHEMA,
    )


def _convert(raw: Any, column: SourceColumn, unit: TimestampUnit, is_one_plain: bool) -> Values:
    if column.kind == "text":
        return column_types.text(raw)
    if column.kind == "categorical":
        return column_types.categorical(raw, column.separator, is_one_plain=is_one_plain)
    if pa.types.is_list(raw.type):
        single = column_types.single(raw)
        values = _convert(single.array, column, unit, is_one_plain)
        return Values(values.array, (*single.faults, *values.faults))
    if column.kind in ("id", "event_type"):
        return column_types.identifier(raw)
    if column.kind == "time":
        return column_types.time(raw, unit)
    return column_types.number(raw, required=column.kind == "rating")


def _misshapen_rows(file_index: int, rows: Sequence[MisshapenRow]) -> pa.Table:
    return pa.table(
        [
            np.full(len(rows), file_index, np.int32),
            [row.row for row in rows],
            [row.column for row in rows],
            [row.value[:_SHOWN_CHARACTERS] for row in rows],
            [row.reason for row in rows],
        ],
        schema=BAD_ROWS_SCHEMA,
    )


def _bad_rows(
    file_index: int, rows: Any, column: str, shown: Sequence[Any], reason: str
) -> pa.Table:
    count = len(rows)
    return pa.table(
        [
            np.full(count, file_index, np.int32),
            rows,
            pa.array([column] * count, pa.string()),
            pa.array([show_value(value)[:_SHOWN_CHARACTERS] for value in shown], pa.string()),
            pa.array([reason] * count, pa.string()),
        ],
        schema=BAD_ROWS_SCHEMA,
    )


def rated_high_enough(events: pa.Table, min_rating: float | None) -> pa.Table:
    """Returns the events that count as positive: all of them where no least rating is set."""
    if min_rating is None:
        return events
    # In the precision of the column, or 4.1 would be above its own float32.
    return events.filter(pc.greater_equal(events[RATING_KEY], pa.scalar(min_rating, pa.float32())))


@dataclass(frozen=True)
class DescribedRows:
    """Rows with distinct ids.

    Attributes:
        table: The first row of each id, in the order of the input.
        num_repeated: How many rows said the same as an earlier one and were dropped.
        conflicts: Rows that say something else than the first one with their id.
    """

    table: pa.Table
    num_repeated: int
    conflicts: pa.Table


def distinct_rows(rows: pa.Table, id_key: str) -> DescribedRows:
    """Keeps the first row of each id; only the declared columns are compared."""
    rows = rows.combine_chunks()
    encoded = rows[id_key].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = np.asarray(encoded.indices)
    _, firsts = np.unique(codes, return_index=True)
    is_first = np.zeros(len(codes), bool)
    is_first[firsts] = True
    later = np.flatnonzero(~is_first)
    originals = firsts[codes[later]]
    differs = np.zeros(len(later), bool)
    for key in rows.schema.names:
        if key not in (id_key, FILE, ROW):
            mine, first = (rows[key].take(pa.array(places)) for places in (later, originals))
            unequal = pc.not_equal(mine, first).fill_null(False)
            one_null = pc.xor(pc.is_null(mine), pc.is_null(first))
            differs |= pc.or_(unequal, one_null).to_numpy()
    return DescribedRows(
        rows.filter(pa.array(is_first)),
        int((~differs).sum()),
        rows.take(pa.array(later[differs])),
    )
