"""Blocks of rows as columns, opening of input files, and TFRecord checksums."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from components import files

READ_ERRORS = (OSError, EOFError, UnicodeError, zlib.error)
# A TFRecord file begins with the length of its first record and a checksum of that length.
RECORD_HEAD_BYTES = 12
_GZIP_MAGIC = b"\x1f\x8b"
_CRC_MASK_DELTA = 0xA282EAD8


# Reasons for rejecting a row, as shown in messages and in `rejected.parquet`.
MISSING = "missing"
SEVERAL = "more than one value"
HOLDS_SEPARATOR = "a value of the list contains the separator"
CONTROL_CHARACTER = "contains a control character"
NOT_UTF8 = "not UTF-8"
NOT_A_NUMBER = "not a finite number"
TOO_LARGE = "too large for a 32-bit float, which must hold its square"
NOT_IN_FORMAT = "not a number in the declared format"
NOT_A_LIST = "not a list of values in the declared `list_format`"
NOT_A_TIME = "not a time"
TIME_OUT_OF_RANGE = "time outside the years 1 to 9999; check `events.timestamp_unit`"
CONFLICT = "contradicts an earlier row with this ID"
WRONG_NUMBER_OF_VALUES = "wrong number of values"
NOT_AN_EXAMPLE = "not a tf.train.Example"
WRONG_KIND = "{found} instead of {expected}"


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, with one of the reasons in this module.

    `line` is the line of a CSV file, or the number of the row in other files, counted from 1.
    `column` is the column with the invalid value, or "" for the whole row.
    """

    line: int
    column: str
    value: str
    reason: str


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file, without `malformed` ones that cannot be split into columns.

    Attributes:
        columns: Raw values by column name: bytes from CSV, physical types from Parquet, values or
            lists of values from TFRecord.
        lines: Line of each row in a CSV file, or its number in other files, counted from 1 [n].
        unwraps_lists: Whether to treat a list of one value like the value alone, because TFRecord
            does not distinguish them.
    """

    columns: dict[str, Any]
    lines: npt.NDArray[np.int64]
    malformed: list[BadRow] = field(default_factory=list)
    unwraps_lists: bool = False


@contextmanager
def open_input(path: str) -> Iterator[Any]:
    """Open a file for reading bytes; gzip is detected by content and decompressed."""
    with files.open_to_read(path) as stream:
        head = stream.read(RECORD_HEAD_BYTES)
        stream.seek(0)
        # The length of a record may begin with the same two bytes as gzip.
        if head.startswith(_GZIP_MAGIC) and not is_record_head(head):
            with gzip.open(stream) as decompressed:
                yield decompressed
        else:
            yield stream


def is_record_head(head: bytes) -> bool:
    """Return whether bytes begin with a TFRecord length and its checksum."""
    return len(head) >= RECORD_HEAD_BYTES and masked_crc(head[:8]) == head[8:RECORD_HEAD_BYTES]


def masked_crc(data: bytes) -> bytes:
    """Return the masked CRC-32C of bytes, as stored in TFRecord files."""
    crc = google_crc32c.value(data)
    masked: int = (((crc >> 15) | (crc << 17)) + _CRC_MASK_DELTA) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def show_value(value: Any) -> str:
    """Format a raw value as text for a message."""
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return "" if value is None else str(value)
