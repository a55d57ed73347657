"""Storage of the transformed timelines during training: in memory if they fit, else in files.

Both classes have the same methods. A row is a cheap reference to a timeline: rows are shuffled and
batched first, and then their columns are looked up or parsed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Default limit of the size of parsed timelines; enough for about 50 million events.
MEMORY_BYTES = 256 << 20
_ROWS_PER_BLOCK = 4096
_READ_BYTES = 8 << 20

Columns: TypeAlias = Mapping[str, tf.RaggedTensor]
# Parses serialised Examples `[batch]` into columns `[batch, (n)]`.
Parse: TypeAlias = Callable[[tf.Tensor], Columns]
# Returns a mask of the held-out rows, `[batch]` bool.
IsHeldOut: TypeAlias = Callable[[Columns], tf.Tensor]


def read_rows(
    files: Sequence[str], parse: Parse, is_held_out: IsHeldOut | None, memory_bytes: int
) -> "RowsInMemory | RowsInFiles":
    """Read `files`, GZIP TFRecords, into memory if they parse to at most `memory_bytes`."""
    in_memory = RowsInMemory.read(files, parse, is_held_out, memory_bytes)
    return in_memory or RowsInFiles(files, parse, is_held_out)


class RowsInMemory:
    """Timelines that are parsed once and kept in memory. A row is the number of a timeline."""

    def __init__(
        self, columns: Columns, sizes: npt.NDArray[np.int32], is_held_out: npt.NDArray[np.bool_]
    ) -> None:
        self._columns = dict(columns)
        self._sizes = tf.constant(sizes)
        self._is_held_out = is_held_out
        self.num_held_out = int(np.count_nonzero(is_held_out))
        self.num_training = len(is_held_out) - self.num_held_out
        self.shuffle_buffer = self.num_training

    @classmethod
    def read(
        cls, files: Sequence[str], parse: Parse, is_held_out: IsHeldOut | None, memory_bytes: int
    ) -> "RowsInMemory | None":
        """Read the timelines, or return None if they take more than `memory_bytes`."""
        values: dict[str, list[npt.NDArray[np.generic]]] = {}
        lengths: dict[str, list[npt.NDArray[np.int64]]] = {}
        sizes = [np.zeros(0, np.int32)]
        held_out = [np.zeros(0, np.bool_)]
        total = 0
        for block_sizes, block in _blocks(files, parse):
            for name, column in block.items():
                values.setdefault(name, []).append(column.values.numpy())
                lengths.setdefault(name, []).append(column.row_lengths().numpy())
                total += values[name][-1].nbytes + lengths[name][-1].nbytes
            if total > memory_bytes:
                return None
            sizes.append(block_sizes.numpy())
            held_out.append(
                is_held_out(block).numpy() if is_held_out else np.zeros(len(sizes[-1]), np.bool_)
            )
        columns = {
            name: tf.RaggedTensor.from_row_lengths(
                np.concatenate(values[name]), np.concatenate(lengths[name]), validate=False
            )
            for name in values
        }
        return cls(columns, np.concatenate(sizes), np.concatenate(held_out))

    def rows(self, *, held_out: bool) -> tf.data.Dataset:
        """Return the numbers (int64) of the held-out or of the training timelines."""
        return tf.data.Dataset.from_tensor_slices(np.flatnonzero(self._is_held_out == held_out))

    def columns(self, rows: tf.Tensor) -> Columns:
        """Return the columns of a batch of rows, `[batch, (n)]` each."""
        return {name: tf.gather(column, rows) for name, column in self._columns.items()}

    def sizes(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the size of each serialised Example in bytes, `[batch]` int32."""
        return tf.gather(self._sizes, rows)


class RowsInFiles:
    """Timelines that are read from files in each epoch. A row is a serialised Example."""

    shuffle_buffer = 100_000

    def __init__(self, files: Sequence[str], parse: Parse, is_held_out: IsHeldOut | None) -> None:
        self._files = list(files)
        self._parse = parse
        self._is_held_out = is_held_out
        self.num_training = _count(self.rows(held_out=False))
        self.num_held_out = 0 if is_held_out is None else _count(self.rows(held_out=True))

    def rows(self, *, held_out: bool) -> tf.data.Dataset:
        """Return the serialised Examples of the held-out or of the training timelines."""
        timelines = _records(self._files)
        if self._is_held_out is None:
            return timelines.take(0) if held_out else timelines
        is_held_out = self._is_held_out

        @tf.autograph.experimental.do_not_convert
        def chosen(serialized: tf.Tensor) -> tf.Tensor:
            return tf.boolean_mask(serialized, is_held_out(self._parse(serialized)) == held_out)

        return timelines.batch(_ROWS_PER_BLOCK).map(chosen).unbatch()

    def columns(self, rows: tf.Tensor) -> Columns:
        """Return the columns of a batch of rows, `[batch, (n)]` each."""
        return self._parse(rows)

    def sizes(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the size of each serialised Example in bytes, `[batch]` int32."""
        return tf.strings.length(rows)


def _records(files: Sequence[str]) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(files, compression_type="GZIP", buffer_size=_READ_BYTES)


def _blocks(files: Sequence[str], parse: Parse) -> Iterator[tuple[tf.Tensor, Columns]]:
    @tf.autograph.experimental.do_not_convert
    def measured(serialized: tf.Tensor) -> tuple[tf.Tensor, Columns]:
        return tf.strings.length(serialized), parse(serialized)

    yield from _records(files).batch(_ROWS_PER_BLOCK).map(measured).prefetch(1)


def _count(timelines: tf.data.Dataset) -> int:
    @tf.autograph.experimental.do_not_convert
    def add(count: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return count + tf.shape(rows)[0]

    return int(timelines.batch(_ROWS_PER_BLOCK).reduce(0, add).numpy())
