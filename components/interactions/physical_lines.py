"""Finds the line of a CSV file on which a record starts; slow, and only run for bad rows."""

import csv
import io
from collections.abc import Iterator
from typing import Any

# The csv module's own limit (128 KiB) is lower than that of the columnar reader.
_LONGEST_FIELD = (1 << 31) - 1


def csv_records(stream: Any, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields each record, the header too, with the 1-based line that it starts on.

    Blank lines count as lines but are no records. Bytes that are not UTF-8 are replaced.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    # The csv module refuses NUL, the columnar reader does not.
    reader = csv.reader((line.replace("\0", "\ufffd") for line in text), delimiter=delimiter)
    line = 1
    for record in reader:
        if record:
            yield line, record
        line = reader.line_num + 1


class LineLocator:
    """Tells the line of a data row; rows must be asked for in ascending order."""

    def __init__(self, stream: Any, delimiter: str):
        self._records = csv_records(stream, delimiter)
        next(self._records, None)
        self._row = -1
        self._line = 0

    def line_of(self, row: int) -> int:
        """Returns the line of a row, counted from 0 without header and blank lines."""
        while self._row < row:
            self._line, _ = next(self._records)
            self._row += 1
        return self._line
