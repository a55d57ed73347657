"""The frames that TFRecord puts around records: lengths, checksums, and gzip around all of it.

References:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import gzip
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

# Length and its checksum.
HEAD_BYTES = 12
_CHECKSUM_BYTES = 4
_GZIP_MAGIC = b"\x1f\x8b"
_MASK_DELTA = 0xA282EAD8


class FrameError(ValueError):
    """The bytes are no TFRecord, or no whole one; the message says where."""


def frame(record: bytes) -> bytes:
    """Returns a record as it stands in a file."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def is_head(head: bytes) -> bool:
    """Whether bytes begin with the length of a record and its checksum."""
    return len(head) >= HEAD_BYTES and _masked_crc(head[:8]) == head[8:HEAD_BYTES]


def is_gzipped(path: str) -> bool:
    """Whether a file of records is packed, whatever it is called."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
        return _is_packed(io.BufferedReader(raw).peek(HEAD_BYTES))


@contextmanager
def open_records(path: str) -> Iterator[Any]:
    """Opens a file for reading frames; gzip is unpacked, whatever the file is called."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
        stream = io.BufferedReader(raw)
        if _is_packed(stream.peek(HEAD_BYTES)):
            with gzip.open(stream) as unpacked:
                yield unpacked
        else:
            yield stream


def _is_packed(head: bytes) -> bool:
    return head.startswith(_GZIP_MAGIC) and not is_head(head)


def read_records(stream: Any, block_bytes: int) -> Iterator[list[bytes]]:
    """Yields the records of a stream, about `block_bytes` of them at a time.

    Raises:
        FrameError: A checksum is wrong, or the last record is cut off.
    """
    rest = b""
    num_read = 0
    while content := stream.read(block_bytes):
        rest += content
        records, end = _whole_records(rest, num_read)
        rest = rest[end:]
        num_read += len(records)
        if records:
            yield records
    if rest:
        raise FrameError(f"the file ends inside of record {num_read + 1}")


def _whole_records(content: bytes, num_before: int) -> tuple[list[bytes], int]:
    """Returns the records at the beginning of `content`, and where the last one ends."""
    records: list[bytes] = []
    checksums: list[bytes] = []
    crcs: list[int] = []
    lengths: dict[bytes, int] = {}  # many records are equally long
    place = 0
    while place + HEAD_BYTES <= len(content):
        begin = place + HEAD_BYTES
        head = content[place:begin]
        length = lengths.get(head)
        if length is None:
            if not is_head(head):
                raise FrameError(
                    f"record {num_before + len(records) + 1} does not begin with a length and its "
                    "checksum"
                )
            (length,) = struct.unpack("<Q", head[:8])
            lengths[head] = length
        end = begin + length
        if end + _CHECKSUM_BYTES > len(content):
            break
        record = content[begin:end]
        records.append(record)
        crcs.append(google_crc32c.value(record))
        place = end + _CHECKSUM_BYTES
        checksums.append(content[end:place])
    wrong = np.flatnonzero(
        _masked(np.array(crcs, np.uint64)) != np.frombuffer(b"".join(checksums), "<u4")
    )
    if len(wrong):
        raise FrameError(f"the checksum of record {num_before + int(wrong[0]) + 1} is wrong")
    return records, place


def _masked(crcs: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    rotated = (crcs >> np.uint64(15)) | (crcs << np.uint64(17))
    masked: npt.NDArray[np.uint64] = (rotated + np.uint64(_MASK_DELTA)) & np.uint64(0xFFFFFFFF)
    return masked


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF)
