"""Raw columns, and what their conversion finds."""

from typing import Any

import pyarrow as pa

from components.interactions.rows.values import Values


def csv_column(*values: bytes) -> Any:
    return pa.array(values, pa.binary())


def faults(found: Values) -> dict[int, str]:
    """The first reason by row."""
    first: dict[int, str] = {}
    for reason, mask in found.faults:
        for row, bad in enumerate(mask):
            if bad:
                first.setdefault(row, reason)
    return first


def good(found: Values) -> list[Any]:
    bad = faults(found)
    return [value for row, value in enumerate(found.array.to_pylist()) if row not in bad]
