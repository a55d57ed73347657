"""History encoders that average the events, with equal weights or with weights by recency."""

import numpy as np
import tensorflow as tf
import tf_keras

from models.towers.history.base import Band, HistoryEncoder


class MeanEncoder(HistoryEncoder):
    """Encoder that applies a linear layer to the mean of the events' vectors; ignores order.

    Example:
        encoder = MeanEncoder(dimension=64)
        states = encoder.last(tower.vectors(tf.ragged.constant([[4, 8], [15]])), 512)  # [2, 64]
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self._project = tf_keras.layers.Dense(
            dimension, use_bias=False, kernel_initializer="identity", name="history_projection"
        )

    def last(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encode whole histories to `[batch, dimension]`."""
        totals = tf.math.unsorted_segment_sum(
            events.values, events.value_rowids(), tf.cast(events.nrows(), tf.int32)
        )
        counts = tf.cast(events.row_lengths(), tf.float32)[:, None]
        return self._project(totals / tf.maximum(counts, 1.0))

    def prefixes(
        self, events: tf.RaggedTensor, newest: int, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Encode the history up to and including each event."""
        # The sums are differences of one running total over all histories, which needs float64.
        values = tf.cast(events.values, tf.float64)
        totals = tf.pad(tf.cumsum(values, axis=0), [[1, 0], [0, 0]])
        ends = tf.range(1, tf.shape(values)[0] + 1)
        row_starts = tf.gather(tf.cast(events.row_starts(), tf.int32), events.value_rowids())
        starts = tf.maximum(row_starts, ends - newest)
        sums = tf.cast(totals[1:] - tf.gather(totals, starts), tf.float32)
        return self._project(sums / tf.cast(ends - starts, tf.float32)[:, None])


class RecencyEncoder(HistoryEncoder):
    """Encoder that applies a linear layer to weighted means of the newest `positions` events.

    Each head has a learned weight per position, counted from the newest event. The initial weights
    decay exponentially: the first head uses almost only the newest event, and the last head almost
    computes a plain mean. The linear layer gives each head its own matrix, so that the newest event
    can have a different effect from the whole history.

    Example:
        encoder = RecencyEncoder(dimension=64, positions=50, heads=4)
        states = encoder.last(tower.vectors(tf.ragged.constant([[4, 8], [15]])), 512)  # [2, 64]
    """

    def __init__(self, dimension: int, positions: int, heads: int) -> None:
        super().__init__()
        self._dimension, self._positions, self._heads = dimension, positions, heads
        mean = tf_keras.initializers.Constant(np.tile(np.eye(dimension), [heads, 1]) / heads)
        self._project = tf_keras.layers.Dense(
            dimension, use_bias=False, kernel_initializer=mean, name="history_projection"
        )
        half_lives = np.geomspace(1 / 3, max(positions, 1), heads)
        decays = -np.log(2.0) * np.arange(positions)[None, :] / half_lives[:, None]
        self._log_weights = self.add_weight(
            # The name is part of the format of exported models; see `named_weights`.
            name="place_log_weights",
            shape=[heads, positions],
            # A weight of 0 would have no gradient.
            initializer=tf_keras.initializers.Constant(np.maximum(decays, -10.0)),
        )

    def last(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encode whole histories to `[batch, dimension]`."""
        events = events[:, -self._positions :]
        rows = tf.cast(events.value_rowids(), tf.int32)
        ends = tf.gather(tf.cast(events.row_limits(), tf.int32), rows)
        ages = ends - 1 - tf.range(tf.shape(rows)[0])
        weights = tf.transpose(tf.gather(self._weights(), ages, axis=1))  # [events, heads]
        sums = tf.math.unsorted_segment_sum(
            weights[:, :, None] * events.values[:, None, :], rows, tf.cast(events.nrows(), tf.int32)
        )
        return self._projected(sums, tf.cast(events.row_lengths(), tf.int32))

    def prefixes(
        self, events: tf.RaggedTensor, newest: int, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Encode the history up to and including each event."""
        # A convolution as matrix products, which are faster on a CPU.
        reach = min(self._positions, newest)
        band = Band(events, reach)
        weights = tf.gather(self._weights(), band.ages, axis=1)  # [heads, block, keys]
        weights = weights * tf.cast(band.visible, tf.float32)[:, None]
        sums = tf.matmul(weights, band.keys(events.values)[:, None])
        sums = tf.transpose(sums, [0, 2, 1, 3])
        sums = band.events(tf.ensure_shape(sums, [None, None, self._heads, self._dimension]))
        rows = tf.cast(events.value_rowids(), tf.int32)
        starts = tf.gather(tf.cast(events.row_starts(), tf.int32), rows)
        counts = tf.minimum(tf.range(1, tf.shape(rows)[0] + 1) - starts, reach)
        return self._projected(tf.reshape(sums, [-1, self._heads, self._dimension]), counts)

    def _weights(self) -> tf.Tensor:
        return tf.exp(self._log_weights)

    def _projected(self, sums: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Divide `[n, heads, dimension]` by the weight of `counts` `[n]` events, and project."""
        totals = tf.transpose(tf.pad(tf.cumsum(self._weights(), axis=1), [[0, 0], [1, 0]]))
        means = tf.math.divide_no_nan(sums, tf.gather(totals, counts)[:, :, None])
        return self._project(tf.reshape(means, [-1, self._heads * self._dimension]))
