"""Base classes of the history encoders.

An encoder has two methods that must agree. `last` returns the state after a whole history, for
serving. `prefixes` returns the state after each event, for training on every position:

    prefixes(x, newest)[:, t] == last(x[:, : t + 1][:, -newest:])
"""

import abc

import tensorflow as tf
import tf_keras


class HistoryEncoder(tf_keras.layers.Layer, abc.ABC):
    """Encoder of histories, which are ragged tensors of vectors `[batch, (events), dimension]`.

    Events are ordered from the oldest to the newest; the caller removes unknown and hidden ones.
    Positions count from the newest event, so that a state does not depend on how many old events
    were cut off.
    """

    @abc.abstractmethod
    def last(self, events: tf.RaggedTensor) -> tf.Tensor:
        """Encode whole histories to `[batch, dimension]`; an empty one to the zero vector."""

    @abc.abstractmethod
    def prefixes(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encode the history up to and including each event, `[num_events, dimension]`.

        As in serving, a state depends on the `newest` events only.
        """


class PaddedEncoder(HistoryEncoder):
    """An encoder that computes all states in one pass over a padded tensor.

    Each state after more than `newest` events is encoded separately, from a window of these events.
    Training on timelines much longer than `model.max_history` is therefore slow.
    """

    @abc.abstractmethod
    def states(self, vectors: tf.Tensor) -> tf.Tensor:
        """Encode `[batch, events, dimension]` to the state after each event, with the same shape.

        Padding is at the end, so a causal encoder needs no mask for it.
        """

    def last(self, events: tf.RaggedTensor) -> tf.Tensor:
        """Encode whole histories to `[batch, dimension]`."""
        return self._last(events.to_tensor(), tf.cast(events.row_lengths(), tf.int32))

    def prefixes(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encode the history up to and including each event."""
        vectors, lengths = events.to_tensor(), tf.cast(events.row_lengths(), tf.int32)
        longest = tf.shape(vectors)[1]
        states = self._states(vectors[:, :newest])[:, : tf.minimum(longest, newest)]
        states = tf.cond(
            longest > newest,
            lambda: tf.concat([states, self._windows(vectors, lengths, newest)], axis=1),
            lambda: states,
        )
        return tf.boolean_mask(states, tf.sequence_mask(lengths, longest))

    def _last(self, vectors: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        states = self._states(vectors)
        newest = tf.gather(states, tf.maximum(lengths - 1, 0), batch_dims=1)
        return newest * tf.cast(lengths > 0, tf.float32)[:, None]

    def _states(self, vectors: tf.Tensor) -> tf.Tensor:
        # An additional event, so that the tensor has one even if all histories are empty.
        return self.states(tf.pad(vectors, [[0, 0], [0, 1], [0, 0]]))

    def _windows(self, vectors: tf.Tensor, lengths: tf.Tensor, newest: int) -> tf.Tensor:
        """Return the states after more than `newest` events, `[batch, rest, dimension]`."""
        # The window of the state after `end` events starts at `end - newest`.
        starts = tf.range(1, tf.shape(vectors)[1] - newest + 1)
        positions = tf.where(starts[None, :] + newest <= lengths[:, None])
        rows = tf.cast(positions[:, 0], tf.int32)
        columns = tf.gather(starts, positions[:, 1])[:, None] + tf.range(newest)[None, :]
        windows = tf.gather_nd(
            vectors, tf.stack([tf.broadcast_to(rows[:, None], tf.shape(columns)), columns], axis=-1)
        )
        encoded = self._last(windows, tf.fill(tf.shape(rows), newest))
        shape = tf.stack([tf.shape(vectors)[0], tf.shape(starts)[0], tf.shape(encoded)[1]])
        return tf.scatter_nd(tf.cast(positions, tf.int32), encoded, shape)
