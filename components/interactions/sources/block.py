"""Blocks of rows as columns, opening of input files, and TFRecord checksums."""

import bz2
import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components import files

READ_ERRORS = (OSError, EOFError, UnicodeError, zlib.error)
# A TFRecord file begins with the length of its first record and a checksum of that length.
RECORD_HEAD_BYTES = 12
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
# Contents that are not read, by their first bytes.
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; extract it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; decompress it, or use gzip or bzip2",
    b"\xfd7zXZ": "compressed with xz; decompress it, or use gzip or bzip2",
}
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ENCODING_BYTES = 128
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
NOT_A_VECTOR = "not a list of `dimension` finite numbers"
NOT_A_TIME = "not a time"
TIME_OUT_OF_RANGE = "time outside the years 1 to 9999; check `events.timestamp_unit`"
CONFLICT = "contradicts an earlier row with this ID"
WRONG_NUMBER_OF_VALUES = "wrong number of values"
MIXED_QUOTES = 'contains \\", which does not fit the other quotes of the file'
NOT_JSON = "not a JSON object"
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
    """Open a file for reading bytes; gzip and bzip2 are detected by content and decompressed.

    Raises:
        OSError: The file cannot be opened, or is an archive or compressed in another way.
    """
    with files.open_to_read(path) as stream:
        head = stream.read(RECORD_HEAD_BYTES)
        stream.seek(0)
        # The length of a record may begin with the same bytes as a compressed file.
        known = [magic for magic in (*_OPENERS, *_FOREIGN) if head.startswith(magic)]
        if not known or is_record_head(head):
            yield stream
        elif known[0] in _FOREIGN:
            raise OSError(f"it is {_FOREIGN[known[0]]}")
        else:
            with _OPENERS[known[0]](stream) as decompressed:
                yield decompressed


def is_compressed(stream: Any) -> bool:
    """Return whether `open_input` decompresses a stream."""
    return isinstance(stream, gzip.GzipFile | bz2.BZ2File)


def as_utf8(stream: Any) -> Any:
    """Return a stream of text as UTF-8, converted from UTF-16 or UTF-32 if necessary."""
    head = stream.read(_ENCODING_BYTES)
    stream.seek(0)
    encoding = next((name for bom, name in _ENCODINGS.items() if head.startswith(bom)), None)
    # Without a byte order mark, every other byte of Western text is zero.
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[first::2].count(0), head[1 - first :: 2].count(0)
        if encoding is None and not others and 2 * zeros > len(head[first::2]):
            encoding = name
    if encoding is None:
        return stream
    return pa.transcoding_input_stream(pa.PythonFile(stream, mode="r"), encoding, "utf-8")


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
