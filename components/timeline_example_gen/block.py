"""A stretch of a file in memory."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class MisshapenRow:
    """A CSV row with too few or too many values.

    Attributes:
        row: Its number, from 0, without header and blank lines.
        expected: Values that the header asks for.
        found: Values that it has.
        text: As in the file.
    """

    row: int
    expected: int
    found: int
    text: str


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        columns: Raw values by column name: bytes from CSV, native types from Parquet.
        rows: The row number of each, from 0, counted over the whole file [n].
        misshapen: Rows before the next block that have no place in `columns`.
    """

    columns: dict[str, Any]
    rows: npt.NDArray[np.int64]
    misshapen: list[MisshapenRow] = field(default_factory=list)
