"""Read TFRecord files of `tf.train.Example` in columnar blocks, without TensorFlow.

References:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.interactions.errors import UnreadableFileError
from components.interactions.sources.block import (
    NOT_AN_EXAMPLE,
    READ_ERRORS,
    RECORD_HEAD_BYTES,
    WRONG_KIND,
    BadRow,
    Block,
    is_record_head,
    masked_crc,
    open_input,
    show_value,
)

# This many records at the beginning of a file decide which features it has.
NUM_FIRST_RECORDS = 1000
_FIRST_BYTES = 1 << 20
# Names and schema types of the value types of features.
_NAMES = {pa.binary(): "bytes", pa.int64(): "int64", pa.float32(): "float"}
_SCHEMA_TYPES = dict(zip(_NAMES, (schema_pb2.BYTES, schema_pb2.INT, schema_pb2.FLOAT), strict=True))
_CHECKSUM_BYTES = 4
_BUFFER_BYTES = 1 << 18
_SHOWN_BYTES = 50
# A parsed Example is much larger than its bytes, so a block is parsed in batches.
_BATCH_RECORDS = 8192


class FrameError(ValueError):
    """The bytes are not valid TFRecord; the message names the record."""


def frame(record: bytes) -> bytes:
    """Return a record with its length and checksums, as stored in a file."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, masked_crc(length), record, masked_crc(record)))


def read_schema(stream: Any) -> pa.Schema:
    """Return the features in the first records of a stream, with the type of their first value.

    Raises:
        FrameError: The stream is not TFRecord, or none of the first records is a `tf.train.Example`
            with features.
    """
    records = next(read_records(stream, _FIRST_BYTES), [])[:NUM_FIRST_RECORDS]
    whole = _decode(records)
    batches = [_decode([record]) for record in records] if whole is None else [whole]
    types: dict[str, pa.DataType] = {}
    always_empty: dict[str, pa.DataType] = {}
    for batch in (batch for batch in batches if batch is not None):
        for name, kind in _value_types(batch).items():
            # Some writers give an empty list an arbitrary type.
            found = types if len(batch[name].flatten()) else always_empty
            found.setdefault(name, kind)
    types = always_empty | types
    if records and not types:
        raise FrameError(
            f"none of its first {len(records)} records is a tf.train.Example with features"
        )
    return pa.schema(sorted(types.items()))


def read_tfrecord_blocks(
    path: str, schema: pa.Schema, columns: Sequence[str], block_bytes: int
) -> Iterator[Block]:
    """Yield the blocks of a file in order; see `files.read_blocks`.

    A feature with at most one value per Example of a block becomes a column of values, with null if
    it is absent. If an Example has several values, the column of the block has lists.
    """
    wanted = {name: schema.field(name).type for name in columns}
    next_row = 0
    try:
        with open_input(path) as stream:
            for records in read_records(stream, block_bytes):
                yield _block(records, next_row + 1, wanted)
                next_row += len(records)
    except (FrameError, *READ_ERRORS) as error:
        raise UnreadableFileError(
            f"{path} cannot be read as TFRecord after record {next_row}: {error}"
        ) from error


def read_records(stream: Any, block_bytes: int) -> Iterator[list[bytes]]:
    """Yield the records of a stream, which is closed at the end, in lists of about `block_bytes`.

    Raises:
        FrameError: A checksum is wrong, or the last record is incomplete.
    """
    records: list[bytes] = []
    num_bytes = number = 0
    lengths: dict[bytes, int] = {}  # many records have the same length
    # A gzip stream is slow if it is read in small parts.
    stream = io.BufferedReader(stream, _BUFFER_BYTES)
    head = stream.read(RECORD_HEAD_BYTES)
    while head:
        number += 1
        if head not in lengths and len(head) == RECORD_HEAD_BYTES:
            if not is_record_head(head):
                raise FrameError(f"record {number} does not begin with a length and its checksum")
            lengths[head] = int.from_bytes(head[:8], "little")
        record = stream.read(lengths.get(head, 0))
        tail = stream.read(_CHECKSUM_BYTES + RECORD_HEAD_BYTES)
        if len(tail) < _CHECKSUM_BYTES:
            if records:
                yield records
            raise FrameError(f"the file ends inside record {number}")
        if masked_crc(record) != tail[:_CHECKSUM_BYTES]:
            raise FrameError(f"the checksum of record {number} is wrong")
        records.append(record)
        num_bytes += len(record)
        head = tail[_CHECKSUM_BYTES:]
        if num_bytes >= block_bytes:
            yield records
            records, num_bytes = [], 0
    if records:
        yield records


def _block(records: Sequence[bytes], first_row: int, wanted: Mapping[str, pa.DataType]) -> Block:
    schema = schema_pb2.Schema()
    for name, kind in wanted.items():
        schema.feature.add(name=name, type=_SCHEMA_TYPES[kind])
    batches: list[pa.RecordBatch] = []
    rows: list[npt.NDArray[np.int64]] = []
    malformed: list[BadRow] = []

    def decode(some: Sequence[bytes], row: int) -> None:
        """Decode records; halve them until the undecodable ones are alone."""
        decoded = _decode(some, schema.SerializeToString())
        if decoded is None and len(some) > 1:
            half = len(some) // 2
            decode(some[:half], row)
            decode(some[half:], row + half)
            return
        decoded = decoded or _decode_odd(some[0], row, wanted)
        if isinstance(decoded, BadRow):
            malformed.append(decoded)
        else:
            batches.append(decoded)
            rows.append(np.arange(row, row + len(decoded), dtype=np.int64))

    for begin in range(0, len(records), _BATCH_RECORDS):
        decode(records[begin : begin + _BATCH_RECORDS], first_row + begin)
    if not batches:
        empty = {name: pa.array([], kind) for name, kind in wanted.items()}
        return Block(empty, np.zeros(0, np.int64), malformed)
    columns = {
        name: _column(pa.concat_arrays([batch[name] for batch in batches]), kind)
        for name, kind in wanted.items()
    }
    return Block(columns, np.concatenate(rows), malformed, unwraps_lists=True)


def _decode(records: Sequence[bytes], schema: bytes | None = None) -> pa.RecordBatch | None:
    """Return records as columns of lists, or None if one cannot be decoded."""
    try:
        # Use a new decoder, because one that has failed keeps values of the failed records.
        return ExamplesToRecordBatchDecoder(schema).DecodeBatch(list(records))
    except RuntimeError:
        return None


def _decode_odd(
    record: bytes, row: int, wanted: Mapping[str, pa.DataType]
) -> pa.RecordBatch | BadRow:
    """Decode a record that does not fit the schema; an empty list of another type is accepted."""
    batch = _decode([record])
    if batch is None:
        shown = record[:_SHOWN_BYTES].decode("utf-8", errors="backslashreplace")
        return BadRow(row, "", shown, NOT_AN_EXAMPLE)
    types = _value_types(batch)
    columns = []
    for name, kind in wanted.items():
        if types.get(name) == kind:
            columns.append(batch[name])
            continue
        values = batch[name][0].as_py() if name in types else None
        if values:
            reason = WRONG_KIND.format(found=_NAMES[types[name]], expected=_NAMES[kind])
            return BadRow(row, name, show_value(values), reason)
        decoded = pa.large_binary() if kind == pa.binary() else kind
        columns.append(pa.nulls(1, pa.large_list(decoded)))
    return pa.RecordBatch.from_arrays(columns, list(wanted))


def _value_types(batch: pa.RecordBatch) -> dict[str, pa.DataType]:
    lists = {field.name: field.type for field in batch.schema if not pa.types.is_null(field.type)}
    values = {name: kind.value_type for name, kind in lists.items()}
    return {n: pa.binary() if kind == pa.large_binary() else kind for n, kind in values.items()}


def _column(lists: Any, value_type: Any) -> Any:
    """Return plain values if no list has several, otherwise lists; empty lists become null."""
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
