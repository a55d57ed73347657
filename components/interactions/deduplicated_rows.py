"""One row an id: collapses equal rows of the catalogue or of the queries, and finds conflicts."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.source_columns import FILE, ROW


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
