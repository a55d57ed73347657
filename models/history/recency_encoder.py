"""The history as several weighted sums in which newer events weigh more."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from models.history.encoder import HistoryEncoder, padded


class RecencyEncoder(HistoryEncoder):
    """Several sums of the newest events, weighted by place, through one linear layer.

    Each head has a learned weight for each place, counted from the newest event. Heads begin as
    exponential decays from "the last event only" to nearly a mean; the linear layer gives each its
    own matrix, so that the last event can point elsewhere than the whole does. A head's weights
    are divided by their sum over the events that there are.

    Args:
        dimension: Of the vectors.
        places: How many of the newest events have a weight; older ones have none.
        heads: How many sums.
    """

    def __init__(self, dimension: int, places: int, heads: int) -> None:
        super().__init__()
        self._dimension, self._places, self._heads = dimension, places, heads
        self._project = tf_keras.layers.Dense(
            dimension, use_bias=False, kernel_initializer=_mean_of_heads, name="history_projection"
        )
        # Half lives from 1/3 of an event to all places.
        half_lives = np.geomspace(1 / 3, max(places, 1), heads)
        self._log_weights = self.add_weight(
            name="place_log_weights",
            shape=[heads, places],
            initializer=tf_keras.initializers.Constant(
                np.maximum(-np.log(2.0) * np.arange(places)[None, :] / half_lives[:, None], -10.0)
            ),
        )

    def last(self, events: tf.RaggedTensor) -> tf.Tensor:
        """Encodes whole histories to `[batch, dimension]`."""
        newest = events[:, -self._places :]
        rows = tf.cast(newest.value_rowids(), tf.int32)
        ends = tf.gather(tf.cast(newest.row_limits(), tf.int32), rows)
        places = ends - 1 - tf.range(tf.shape(rows)[0])
        weights = tf.gather(self._weights(), places, axis=1)  # [heads, events]
        num_rows = tf.cast(newest.nrows(), tf.int32)
        sums = tf.math.unsorted_segment_sum(
            tf.transpose(weights)[:, :, None] * newest.values[:, None, :], rows, num_rows
        )
        return self._through(sums, tf.cast(newest.row_lengths(), tf.int32), self._places)

    def prefixes(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encodes the history before each event, and the whole."""
        # A convolution over places, as products with banded matrices, which a CPU is faster at:
        # histories are cut into blocks, and a state looks at its own block and the one before.
        vectors = padded(events)
        reach = min(self._places, newest)
        batch, states = tf.shape(vectors)[0], tf.shape(vectors)[1] + 1
        block = tf.minimum(states, reach)
        blocks = -(-states // block)
        vectors = tf.pad(vectors, [[0, 0], [block, blocks * block - states + 1], [0, 0]])
        cut = tf.reshape(vectors, tf.stack([batch, blocks + 1, block, self._dimension]))
        pairs = tf.concat([cut[:, :-1], cut[:, 1:]], axis=2)
        ages = (block + tf.range(block))[:, None] - 1 - tf.range(2 * block)[None, :]
        seen = tf.cast((ages >= 0) & (ages < reach), tf.float32)
        band = tf.gather(self._weights(), tf.clip_by_value(ages, 0, reach - 1), axis=1) * seen
        sums = tf.einsum("hij,bnjd->bnihd", band, pairs)
        shape = tf.stack([batch, blocks * block, self._heads, self._dimension])
        return self._through(tf.reshape(sums, shape)[:, :states], tf.range(states), reach)

    def _weights(self) -> tf.Tensor:
        return tf.exp(self._log_weights)

    def _through(self, sums: tf.Tensor, counts: tf.Tensor, reach: int) -> tf.Tensor:
        """Normalises `[..., heads, dimension]` by the weights of `counts` events and projects."""
        totals = tf.transpose(tf.pad(tf.cumsum(self._weights(), axis=1), [[0, 0], [1, 0]]))
        divisors = tf.gather(totals, tf.minimum(counts, reach))[..., None]
        means = tf.math.divide_no_nan(sums, divisors)
        width = self._heads * self._dimension
        flat = tf.reshape(means, tf.concat([tf.shape(sums)[:-2], [width]], axis=0))
        return self._project(tf.ensure_shape(flat, [*sums.shape[:-2], width]))


def _mean_of_heads(shape: Any, dtype: Any = None, **_: Any) -> tf.Tensor:
    """The identity for each head, divided by the number of heads."""
    inputs, outputs = shape
    return tf.tile(tf.eye(outputs, dtype=dtype or tf.float32), [inputs // outputs, 1]) / (
        inputs // outputs
    )
