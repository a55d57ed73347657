"""The history as a mean: what somebody likes, in no order."""

import tensorflow as tf
import tf_keras

from models.towers.history.encoder import HistoryEncoder


class MeanEncoder(HistoryEncoder):
    """The mean of the events' vectors, through one linear layer.

    Order does not matter to it. An empty history is the zero vector.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self._project = tf_keras.layers.Dense(
            dimension, use_bias=False, kernel_initializer="identity", name="history_projection"
        )

    def last(self, events: tf.RaggedTensor) -> tf.Tensor:
        """Encodes whole histories to `[batch, dimension]`."""
        totals = tf.math.unsorted_segment_sum(
            events.values, events.value_rowids(), tf.cast(events.nrows(), tf.int32)
        )
        counts = tf.cast(events.row_lengths(), tf.float32)[:, None]
        return self._project(totals / tf.maximum(counts, 1.0))

    def prefixes(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encodes the history up to each event, this one included."""
        # Differences of one running total over all histories, in a precision that bears it.
        values = tf.cast(events.values, tf.float64)
        totals = tf.pad(tf.cumsum(values, axis=0), [[1, 0], [0, 0]])
        ends = tf.range(1, tf.shape(values)[0] + 1)
        starts = tf.gather(tf.cast(events.row_starts(), tf.int32), events.value_rowids())
        begins = tf.maximum(starts, ends - newest)
        sums = tf.cast(totals[1:] - tf.gather(totals, begins), tf.float32)
        return self._project(sums / tf.cast(ends - begins, tf.float32)[:, None])
