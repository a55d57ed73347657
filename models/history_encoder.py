"""The events before a question as one vector.

An encoder has two faces that must agree: `last` gives the state after a whole history, which is
what serving asks, and `prefixes` the state before each event, which is what training on every
position needs: `prefixes(x, newest)[:, t] == last(x[:, :t][:, -newest:])`.
"""

import tensorflow as tf
import tf_keras


class MeanHistoryEncoder(tf_keras.layers.Layer):
    """The mean of the events' vectors, through one linear layer.

    Order does not matter to it. An empty history is the zero vector.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self._project = tf_keras.layers.Dense(
            dimension, use_bias=False, kernel_initializer="identity", name="history_projection"
        )

    def last(self, vectors: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Encodes whole histories.

        Args:
            vectors: `[batch, events, dimension]`, oldest first.
            present: `[batch, events]` float32, 0 for padding.

        Returns:
            `[batch, dimension]`.
        """
        total = tf.einsum("bed,be->bd", vectors, present)
        count = tf.reduce_sum(present, axis=1, keepdims=True)
        return self._project(total / tf.maximum(count, 1.0))

    def pooled(
        self, vectors: tf.Tensor, present: tf.Tensor, rows: tf.Tensor, num_rows: tf.Tensor
    ) -> tf.Tensor:
        """As `last`, for events in one list without padding.

        Args:
            vectors: `[num_events, dimension]`.
            present: `[num_events]` float32.
            rows: `[num_events]` int32, ascending: the history each event belongs to.
            num_rows: How many histories there are.

        Returns:
            `[num_rows, dimension]`.
        """
        total = tf.math.unsorted_segment_sum(vectors * present[:, None], rows, num_rows)
        count = tf.math.unsorted_segment_sum(present, rows, num_rows)[:, None]
        return self._project(total / tf.maximum(count, 1.0))

    def prefixes(self, vectors: tf.Tensor, present: tf.Tensor, newest: int) -> tf.Tensor:
        """Encodes, for each event, the `newest` events before it; `[batch, events, dimension]`."""
        totals = _sum_of_newest(vectors * present[..., None], newest)
        counts = _sum_of_newest(present[..., None], newest)
        return self._project(totals / tf.maximum(counts, 1.0))


def _sum_of_newest(values: tf.Tensor, newest: int) -> tf.Tensor:
    """Sums, at each place of `[batch, events, n]`, the `newest` values before it."""
    totals = tf.cumsum(values, axis=1, exclusive=True)
    too_old = tf.pad(totals, [[0, 0], [newest, 0], [0, 0]])[:, : tf.shape(totals)[1]]
    return totals - too_old
