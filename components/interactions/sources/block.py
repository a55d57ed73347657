"""Blocks of rows as columns, opening of input files, and TFRecord checksums."""

import gzip
import struct
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


@dataclass(frozen=True)
class MalformedRow:
    """A row that cannot be split into columns.

    Attributes:
        row: Row number, counted from 0 without the header and blank lines.
        column: Name of the malformed column, or "" for the whole row.
        value: Text of the malformed value or row.
        reason: One of the constants in `bad_row_reasons`.
    """

    row: int
    column: str
    value: str
    reason: str


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        columns: Raw values by column name: bytes from CSV, physical types from Parquet, values or
            lists of values from TFRecord.
        rows: Row number of each row in the file, counted from 0 [n].
        malformed: Rows of this part of the file that are not in `columns`.
        unwraps_lists: Whether to treat a list of one value like the value alone, because TFRecord
            does not distinguish them.
    """

    columns: dict[str, Any]
    rows: npt.NDArray[np.int64]
    malformed: list[MalformedRow] = field(default_factory=list)
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
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _CRC_MASK_DELTA) & 0xFFFFFFFF)


def mask_crcs(crcs: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mask an array of CRC-32C values as TFRecord does."""
    rotated = (crcs >> np.uint64(15)) | (crcs << np.uint64(17))
    masked: npt.NDArray[np.uint64] = (rotated + np.uint64(_CRC_MASK_DELTA)) & np.uint64(0xFFFFFFFF)
    return masked


def show_value(value: Any) -> str:
    """Format a raw value as text for a message."""
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return "" if value is None else str(value)
