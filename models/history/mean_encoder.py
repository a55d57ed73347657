"""The history as a mean: what somebody likes, in no order."""

import tensorflow as tf
import tf_keras

from models.history.encoder import HistoryEncoder, padded


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
        """Encodes the history before each event, and the whole."""
        totals = tf.pad(tf.cumsum(padded(events), axis=1), [[0, 0], [1, 0], [0, 0]])
        states = tf.shape(totals)[1]
        too_old = tf.pad(totals, [[0, 0], [newest, 0], [0, 0]])[:, :states]
        counts = tf.cast(tf.minimum(tf.range(states), newest), tf.float32)[:, None]
        return self._project((totals - too_old) / tf.maximum(counts, 1.0))
