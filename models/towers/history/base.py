"""The base class of the history encoders, and the blocks in which they process events.

An encoder has two methods that must agree. `last` returns the state after a whole history, for
serving. `prefixes` returns the state after each event, for training on every position:

    prefixes(x, newest)[:, t] == last(x[:, : t + 1][:, -newest:], newest)
"""

import abc

import tensorflow as tf
import tf_keras

_BLOCK = 64


class HistoryEncoder(tf_keras.layers.Layer, abc.ABC):
    """Encoder of histories, which are ragged tensors of vectors `[batch, (events), dimension]`.

    Events are ordered from the oldest to the newest; the caller removes unknown and hidden ones.
    Positions count from the newest event, so that a state does not depend on how many old events
    were cut off.
    """

    @abc.abstractmethod
    def last(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encode whole histories to `[batch, dimension]`; an empty one to the zero vector.

        They have at most `newest` events; the caller cuts off older ones.
        """

    @abc.abstractmethod
    def prefixes(
        self, events: tf.RaggedTensor, newest: int, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Encode the history up to and including each event, `[num_events, dimension]`.

        As in serving, a state depends on the `newest` events only. `seed`, `[2]` int32, switches on
        dropout.
        """


class Band:
    """The `reach` newest events up to and including each event, as blocks for matrix products.

    The events of all histories are concatenated and cut into blocks. The queries of a block share
    its keys, which are the events of the block and the `reach - 1` events before it. Memory and
    time therefore grow with the number of events, not with the length of the longest history.

    Args:
        events: Histories, of which only the lengths are used.
        reach: Number of newest events, from 1.

    Attributes:
        ages: Number of events between a key and a query, from 0 to `reach - 1`, `[block, keys]`.
        visible: Whether the query may read the key, `[blocks, block, keys]`.
    """

    def __init__(self, events: tf.RaggedTensor, reach: int | tf.Tensor) -> None:
        rows = tf.cast(events.value_rowids(), tf.int32)
        self._num_events = tf.shape(rows)[0]
        blocks = -(-self._num_events // _BLOCK)
        self._before, self._after = reach - 1, blocks * _BLOCK - self._num_events
        keys = tf.range(_BLOCK + self._before)[None, :]
        self._taken = tf.range(blocks)[:, None] * _BLOCK + keys
        padded_rows = tf.pad(rows, [[self._before, self._after]], constant_values=-1)
        own_rows = tf.reshape(padded_rows[self._before :], [-1, _BLOCK])
        same_row = own_rows[:, :, None] == tf.gather(padded_rows, self._taken)[:, None, :]
        ages = tf.range(_BLOCK)[:, None] + self._before - keys
        self.visible = same_row & ((ages >= 0) & (ages < reach))
        self.ages = tf.clip_by_value(ages, 0, self._before)

    def keys(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values of the keys, `[num_events, n]` to `[blocks, keys, n]`."""
        return tf.gather(tf.pad(values, [[self._before, self._after], [0, 0]]), self._taken)

    def queries(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values of the queries, `[num_events, n]` to `[blocks, block, n]`."""
        padded = tf.pad(values, [[0, self._after], [0, 0]])
        return tf.reshape(padded, [-1, _BLOCK, values.shape[1]])

    def events(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values of the events, `[blocks, block, ...]` to `[num_events, n]`."""
        size = values.shape[2:].num_elements()
        return tf.reshape(values, [-1, size])[: self._num_events]
