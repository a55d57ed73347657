"""The frames that TFRecord puts around records: lengths, checksums, and gzip around all of it.

References:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import gzip
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.interactions.errors import UnreadableFileError
from components.interactions.sources.block import READ_ERRORS, Block, MisshapenRow, show_value

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


FeatureKind = Literal["bytes", "int64", "float"]

NOT_AN_EXAMPLE = "not a tf.train.Example"

ARROW_TYPES: dict[FeatureKind, Any] = {
    "bytes": pa.binary(),
    "int64": pa.int64(),
    "float": pa.float32(),
}
_SCHEMA_TYPES: dict[FeatureKind, int] = {
    "bytes": schema_pb2.BYTES,
    "int64": schema_pb2.INT,
    "float": schema_pb2.FLOAT,
}
# As they are decoded.
_LARGE_TYPES: dict[FeatureKind, Any] = {**ARROW_TYPES, "bytes": pa.large_binary()}
# Records that tell which features there are, and how much is read to find them.
NUM_FIRST_RECORDS = 1000
_FIRST_BYTES = 1 << 20
_SHOWN_BYTES = 50
# A parsed Example takes many times its bytes, so a block is not parsed at once.
_BATCH_RECORDS = 8192


def first_records(path: str) -> list[bytes]:
    """Returns up to `NUM_FIRST_RECORDS` records from the beginning of a file.

    Raises:
        FrameError: The file is no TFRecord, or ends inside of its first record.
    """
    with open_records(path) as stream:
        return next(read_records(stream, _FIRST_BYTES), [])[:NUM_FIRST_RECORDS]


def feature_kinds(records: Sequence[bytes]) -> dict[str, FeatureKind]:
    """Returns the features that records have, each of the kind of its first value.

    Raises:
        FrameError: There are records, but none is a `tf.train.Example` with features.
    """
    batches = [_decode(records)]
    if batches[0] is None:
        batches = [_decode([record]) for record in records]
    decoded = [batch for batch in batches if batch is not None]
    kinds: dict[str, FeatureKind] = {}
    always_empty: dict[str, FeatureKind] = {}
    for batch in decoded:
        for name, kind in _kinds(batch).items():
            # Some writers give an empty list any kind.
            found = kinds if len(batch[name].flatten()) else always_empty
            found.setdefault(name, kind)
    kinds = {**always_empty, **kinds}
    if records and not kinds:
        raise FrameError(
            f"none of its first {len(records)} records is a tf.train.Example with features"
        )
    return kinds


def read_tfrecord_blocks(
    path: str, kinds: Mapping[str, FeatureKind], columns: Sequence[str], block_bytes: int
) -> Iterator[Block]:
    """Yields the blocks of a file in order; see `blocks.read_blocks`.

    A feature with one value in each Example becomes a column of values, null where it is absent;
    where an Example has several, a column of lists.

    Args:
        path: The file.
        kinds: Of the columns.
        columns: The features to read.
        block_bytes: Roughly how much of the file, unpacked, a block holds.
    """
    wanted = {name: kinds[name] for name in columns}
    next_row = 0
    try:
        with open_records(path) as stream:
            for records in read_records(stream, block_bytes):
                yield decode_block(records, next_row, wanted)
                next_row += len(records)
    except (FrameError, *READ_ERRORS) as error:
        raise UnreadableFileError(
            f"{path} cannot be read as TFRecord beyond record {next_row}: {error}"
        ) from error


def decode_block(
    records: Sequence[bytes], first_row: int, wanted: Mapping[str, FeatureKind]
) -> Block:
    """Returns consecutive records as columns.

    Args:
        records: Serialized Examples.
        first_row: Number of the first, from 0.
        wanted: The features to read, and of which kind they must be.
    """
    batches: list[pa.RecordBatch] = []
    rows: list[npt.NDArray[np.int64]] = []
    misshapen: list[MisshapenRow] = []
    for row, batch in _decode_all(records, first_row, _schema(wanted)):
        if batch is None:
            batch = _decode_odd(records[row - first_row], row, wanted)
        if isinstance(batch, MisshapenRow):
            misshapen.append(batch)
        else:
            batches.append(batch)
            rows.append(np.arange(row, row + len(batch), dtype=np.int64))
    if not batches:
        empty = {name: pa.array([], ARROW_TYPES[kind]) for name, kind in wanted.items()}
        return Block(empty, np.zeros(0, np.int64), misshapen)
    columns = {
        name: _column(pa.concat_arrays([batch[name] for batch in batches]), ARROW_TYPES[kind])
        for name, kind in wanted.items()
    }
    return Block(columns, np.concatenate(rows), misshapen, is_one_plain=True)


def _decode_all(
    records: Sequence[bytes], first_row: int, schema: bytes
) -> Iterator[tuple[int, pa.RecordBatch | None]]:
    for begin in range(0, len(records), _BATCH_RECORDS):
        batch = records[begin : begin + _BATCH_RECORDS]
        yield from _decode_apart(batch, first_row + begin, schema)


def _decode_apart(
    records: Sequence[bytes], first_row: int, schema: bytes
) -> Iterator[tuple[int, pa.RecordBatch | None]]:
    """Yields stretches that can be decoded together, and None for each record that cannot be."""
    batch = _decode(records, schema)
    if batch is not None or len(records) == 1:
        yield first_row, batch
        return
    half = len(records) // 2
    yield from _decode_apart(records[:half], first_row, schema)
    yield from _decode_apart(records[half:], first_row + half, schema)


def _decode(records: Sequence[bytes], schema: bytes | None = None) -> pa.RecordBatch | None:
    """Returns records as columns of lists; None where a record is odd."""
    try:
        # A decoder that has failed keeps values of the records that it failed on.
        return ExamplesToRecordBatchDecoder(schema).DecodeBatch(list(records))
    except RuntimeError:
        return None


def _decode_odd(
    record: bytes, row: int, wanted: Mapping[str, FeatureKind]
) -> pa.RecordBatch | MisshapenRow:
    """Says what is wrong with a record; an empty list of the wrong kind is nothing wrong."""
    batch = _decode([record])
    if batch is None:
        shown = record[:_SHOWN_BYTES].decode("utf-8", errors="backslashreplace")
        return MisshapenRow(row, "", shown, NOT_AN_EXAMPLE)
    kinds = _kinds(batch)
    columns = []
    for name, kind in wanted.items():
        if kinds.get(name) == kind:
            columns.append(batch[name])
            continue
        values = batch[name][0].as_py() if name in kinds else None
        if values:
            shown = show_value(values)
            return MisshapenRow(row, name, shown, f"{kinds[name]} instead of {kind}")
        columns.append(pa.nulls(1, pa.large_list(_LARGE_TYPES[kind])))
    return pa.RecordBatch.from_arrays(columns, list(wanted))


def _schema(kinds: Mapping[str, FeatureKind]) -> bytes:
    schema = schema_pb2.Schema()
    for name, kind in kinds.items():
        schema.feature.add(name=name, type=_SCHEMA_TYPES[kind])
    serialized: bytes = schema.SerializeToString()
    return serialized


def _kinds(batch: pa.RecordBatch) -> dict[str, FeatureKind]:
    """Returns the kinds of features as far as there are any."""
    found: dict[str, FeatureKind] = {}
    for field in batch.schema:
        if not pa.types.is_null(field.type):
            value_type = field.type.value_type
            found[field.name] = next(k for k, large in _LARGE_TYPES.items() if large == value_type)
    return found


def _column(lists: Any, value_type: Any) -> Any:
    """Returns values where no list has several, else lists; an empty list becomes null."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    values = lists.flatten().cast(value_type)
    if (lengths == 1).all():
        return values
    ends = np.cumsum(lengths)
    absent = lengths == 0
    if (lengths <= 1).all():
        return values.take(pa.array(ends - 1, mask=absent))
    bounds = np.concatenate(([0], ends)).astype(np.int32)
    offsets = pa.array(bounds, mask=np.append(absent, False))
    return pa.ListArray.from_arrays(offsets, values)
