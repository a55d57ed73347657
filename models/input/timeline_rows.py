"""Where the transformed timelines are while a fit goes over them: in memory, or in their files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Parsed: about 50 million events. Beyond it an epoch reads the files anew.
MEMORY_BYTES = 256 << 20
_ROWS_A_BLOCK = 4096
_READ_BYTES = 8 << 20

Columns = Mapping[str, tf.RaggedTensor]
# `[batch]` serialised Examples to columns `[batch, (n)]`.
Parse = Callable[[tf.Tensor], Columns]
# Columns to `[batch]` bool.
Choose = Callable[[Columns], tf.Tensor]


class TimelineRows(Protocol):
    """Timelines in the order of their files.

    Attributes:
        num_fitted: Timelines to fit on.
        num_held_out: Timelines kept out of it.
        shuffle_buffer: How many rows may be held to draw the next one from.
    """

    num_fitted: int
    num_held_out: int
    shuffle_buffer: int

    def rows(self, *, held_out: bool) -> tf.data.Dataset:
        """Returns what stands for each row: cheap to shuffle and to batch."""

    def columns(self, rows: tf.Tensor) -> Columns:
        """Returns the columns of a batch of rows, `[batch, (n)]` each."""

    def sizes(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the bytes of each serialised Example, `[batch]` int32."""


def find_rows(
    files: Sequence[str], parse: Parse, choose: Choose | None, memory_bytes: int
) -> TimelineRows:
    """Reads the timelines into memory if, parsed, they take no more than `memory_bytes`.

    Args:
        files: GZIP TFRecords of transformed Examples.
        parse: Parses a batch of them at once.
        choose: Tells which rows are held out; None where none are.
        memory_bytes: Greatest size.
    """
    return RowsInMemory.read(files, parse, choose, memory_bytes) or RowsInFiles(
        files, parse, choose
    )


class RowsInMemory:
    """Parsed once, before the first epoch; a row is a number."""

    def __init__(
        self, columns: Columns, sizes: npt.NDArray[np.int32], is_held_out: npt.NDArray[np.bool_]
    ) -> None:
        self._columns = dict(columns)
        self._sizes = tf.constant(sizes)
        self._is_held_out = is_held_out
        self.num_held_out = int(np.count_nonzero(is_held_out))
        self.num_fitted = len(is_held_out) - self.num_held_out
        self.shuffle_buffer = self.num_fitted

    @classmethod
    def read(
        cls, files: Sequence[str], parse: Parse, choose: Choose | None, memory_bytes: int
    ) -> "RowsInMemory | None":
        """Returns the rows, or None if they take more than `memory_bytes`."""
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
                np.zeros(len(sizes[-1]), np.bool_) if choose is None else choose(block).numpy()
            )
        columns = {
            name: tf.RaggedTensor.from_row_lengths(
                np.concatenate(values[name]), np.concatenate(lengths[name]), validate=False
            )
            for name in values
        }
        return cls(columns, np.concatenate(sizes), np.concatenate(held_out))

    def rows(self, *, held_out: bool) -> tf.data.Dataset:
        """Numbers of rows, int64."""
        return tf.data.Dataset.from_tensor_slices(np.flatnonzero(self._is_held_out == held_out))

    def columns(self, rows: tf.Tensor) -> Columns:
        """Looks the rows up."""
        return {name: tf.gather(column, rows) for name, column in self._columns.items()}

    def sizes(self, rows: tf.Tensor) -> tf.Tensor:
        """Looks them up."""
        return tf.gather(self._sizes, rows)


class RowsInFiles:
    """Read anew in each epoch; a row is a serialised Example."""

    shuffle_buffer = 100_000

    def __init__(self, files: Sequence[str], parse: Parse, choose: Choose | None) -> None:
        self._files = list(files)
        self._parse = parse
        self._choose = choose
        self.num_fitted = _count(self.rows(held_out=False))
        self.num_held_out = 0 if choose is None else _count(self.rows(held_out=True))

    def rows(self, *, held_out: bool) -> tf.data.Dataset:
        """Serialised Examples."""
        timelines = _records(self._files)
        if self._choose is None:
            return timelines.take(0) if held_out else timelines
        choose = self._choose

        @tf.autograph.experimental.do_not_convert
        def chosen(serialized: tf.Tensor) -> tf.Tensor:
            return tf.boolean_mask(serialized, choose(self._parse(serialized)) == held_out)

        return timelines.batch(_ROWS_A_BLOCK).map(chosen).unbatch()

    def columns(self, rows: tf.Tensor) -> Columns:
        """Parses the whole batch at once."""
        return self._parse(rows)

    def sizes(self, rows: tf.Tensor) -> tf.Tensor:
        """Measures them."""
        return tf.strings.length(rows)


def _records(files: Sequence[str]) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(files, compression_type="GZIP", buffer_size=_READ_BYTES)


def _blocks(files: Sequence[str], parse: Parse) -> Iterator[tuple[tf.Tensor, Columns]]:
    @tf.autograph.experimental.do_not_convert
    def measured(serialized: tf.Tensor) -> tuple[tf.Tensor, Columns]:
        return tf.strings.length(serialized), parse(serialized)

    yield from _records(files).batch(_ROWS_A_BLOCK).map(measured).prefetch(1)


def _count(timelines: tf.data.Dataset) -> int:
    @tf.autograph.experimental.do_not_convert
    def add(count: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return count + tf.shape(rows)[0]

    return int(timelines.batch(_ROWS_A_BLOCK).reduce(0, add).numpy())
