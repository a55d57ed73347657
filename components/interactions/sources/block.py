"""Opens input files on any Beam filesystem."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

READ_ERRORS = (OSError, EOFError, zlib.error)


@contextmanager
def open_input(path: str) -> Iterator[Any]:
    """Opens a file for reading bytes; `.gz` is unpacked.

    Beam would unpack too, but takes a truncated file for a whole one.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        if path.lower().endswith(".gz"):
            with gzip.open(stream) as unpacked:
                yield unpacked
        else:
            yield stream


@dataclass(frozen=True)
class MisshapenRow:
    """A row that cannot be parted into columns.

    Attributes:
        row: Its number, from 0, without header and blank lines.
        column: Where it fails; empty: as a whole.
        value: What stands there.
        reason: What is wrong.
    """

    row: int
    column: str
    value: str
    reason: str


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        columns: Raw values by column name: bytes from CSV, native types from Parquet, those of
            features or lists of them from TFRecord.
        rows: The row number of each, from 0, counted over the whole file [n].
        misshapen: Rows before the next block that have no place in `columns`.
        is_one_plain: Whether a list of one value is no list but that value: TFRecord does not tell
            them apart.
    """

    columns: dict[str, Any]
    rows: npt.NDArray[np.int64]
    misshapen: list[MisshapenRow] = field(default_factory=list)
    is_one_plain: bool = False


def show_value(value: Any) -> str:
    """Returns a raw value as text for a person."""
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return "" if value is None else str(value)
