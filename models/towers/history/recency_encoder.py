"""The history as several weighted means in which newer events weigh more."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from models.towers.history.encoder import HistoryEncoder

_BLOCK = 64


class RecencyEncoder(HistoryEncoder):
    """Several means of the newest events, weighted by place, through one linear layer.

    Each head has a learned weight for each place, counted from the newest event. Heads begin as
    exponential decays from "the last event only" to nearly a plain mean; the linear layer gives
    each its own matrix, so that the last event can point elsewhere than the whole does.

    Args:
        dimension: Of the vectors.
        places: How many of the newest events have a weight; older ones have none.
        heads: How many means.
    """

    def __init__(self, dimension: int, places: int, heads: int) -> None:
        super().__init__()
        self._dimension, self._places, self._heads = dimension, places, heads
        self._project = tf_keras.layers.Dense(
            dimension, use_bias=False, kernel_initializer=_mean_of_heads, name="history_projection"
        )
        half_lives = np.geomspace(1 / 3, max(places, 1), heads)
        decays = -np.log(2.0) * np.arange(places)[None, :] / half_lives[:, None]
        self._log_weights = self.add_weight(
            name="place_log_weights",
            shape=[heads, places],
            # What is nothing would never learn to be something.
            initializer=tf_keras.initializers.Constant(np.maximum(decays, -10.0)),
        )

    def last(self, events: tf.RaggedTensor) -> tf.Tensor:
        """Encodes whole histories to `[batch, dimension]`."""
        newest = events[:, -self._places :]
        rows = tf.cast(newest.value_rowids(), tf.int32)
        ends = tf.gather(tf.cast(newest.row_limits(), tf.int32), rows)
        ages = ends - 1 - tf.range(tf.shape(rows)[0])
        weights = tf.transpose(tf.gather(self._weights(), ages, axis=1))  # [events, heads]
        sums = tf.math.unsorted_segment_sum(
            weights[:, :, None] * newest.values[:, None, :], rows, tf.cast(newest.nrows(), tf.int32)
        )
        return self._through(sums, tf.cast(newest.row_lengths(), tf.int32))

    def prefixes(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encodes the history up to each event, this one included."""
        # A convolution, as products of matrices, which a CPU is faster at: the events of all
        # histories in one row are cut into blocks, and each block is multiplied with a band of
        # weights over itself and as many events before it as a state looks back.
        reach = min(self._places, newest)
        rows = tf.cast(events.value_rowids(), tf.int32)
        num_events = tf.shape(rows)[0]
        blocks = -(-num_events // _BLOCK)
        rest = blocks * _BLOCK - num_events
        places = tf.range(blocks)[:, None] * _BLOCK + tf.range(_BLOCK + reach - 1)[None, :]
        owners = tf.pad(rows, [[reach - 1, rest]], constant_values=-1)
        vectors = tf.gather(tf.pad(events.values, [[reach - 1, rest], [0, 0]]), places)
        own = tf.reshape(owners[reach - 1 :], [-1, _BLOCK])
        same = tf.cast(own[:, :, None] == tf.gather(owners, places)[:, None, :], tf.float32)
        ages = tf.range(_BLOCK)[:, None] + reach - 1 - tf.range(_BLOCK + reach - 1)[None, :]
        seen = tf.cast((ages >= 0) & (ages < reach), tf.float32)
        band = tf.gather(self._weights(), tf.clip_by_value(ages, 0, reach - 1), axis=1) * seen
        sums = tf.matmul(band[None] * same[:, None], vectors[:, None])
        sums = tf.reshape(tf.transpose(sums, [0, 2, 1, 3]), [-1, self._heads, self._dimension])
        starts = tf.gather(tf.cast(events.row_starts(), tf.int32), rows)
        counts = tf.minimum(tf.range(1, num_events + 1) - starts, reach)
        return self._through(sums[:num_events], counts)

    def _weights(self) -> tf.Tensor:
        return tf.exp(self._log_weights)

    def _through(self, sums: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Divides `[n, heads, dimension]` by the weights of `counts` `[n]` events; projects."""
        totals = tf.transpose(tf.pad(tf.cumsum(self._weights(), axis=1), [[0, 0], [1, 0]]))
        means = tf.math.divide_no_nan(sums, tf.gather(totals, counts)[:, :, None])
        return self._project(tf.reshape(means, [-1, self._heads * self._dimension]))


def _mean_of_heads(shape: Any, dtype: Any = None, **_: Any) -> tf.Tensor:
    """The identity for each head, divided by the number of heads."""
    inputs, outputs = shape
    heads = inputs // outputs
    return tf.tile(tf.eye(outputs, dtype=dtype or tf.float32), [heads, 1]) / heads
