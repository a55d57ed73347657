"""What all history encoders have in common.

An encoder has two faces that must agree: `last` gives the state after a whole history, which is
what serving asks, and `prefixes` the state after each event, which is what training on every
position needs: `prefixes(x, newest)[:, t] == last(x[:, : t + 1][:, -newest:])`.
"""

import abc

import tensorflow as tf
import tf_keras


class HistoryEncoder(tf_keras.layers.Layer, abc.ABC):
    """Encodes histories, oldest event first and without holes.

    Histories come as a ragged tensor of vectors, `[batch, (events), dimension]`: whoever calls
    leaves out events that are unknown or hidden. Places in a history count from its newest event,
    so that a state does not depend on how much was cut off at the other end.
    """

    # Whether `prefixes` computes on a padded tensor, and so wants histories of about one length.
    pads = False

    @abc.abstractmethod
    def last(self, events: tf.RaggedTensor) -> tf.Tensor:
        """Encodes whole histories to `[batch, dimension]`; an empty one to the zero vector."""

    @abc.abstractmethod
    def prefixes(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encodes the history up to each event, this one included.

        Args:
            events: `[batch, (events), dimension]`.
            newest: How many events a state looks back at most, as serving cuts histories.

        Returns:
            `[num_events, dimension]`, in the order of `events.values`.
        """


class PaddedEncoder(HistoryEncoder):
    """An encoder that makes its states in one pass over a padded tensor, of whole histories only.

    Where a history is longer than `newest`, the states beyond it are encoded from a window each,
    which costs as many passes as there are such states: training on timelines far longer than
    `model.max_history` is slow with it.
    """

    pads = True

    @abc.abstractmethod
    def states(self, vectors: tf.Tensor) -> tf.Tensor:
        """Encodes `[batch, events, dimension]` to the states after each event, of the same shape.

        Padding stands at the end, so a causal encoder needs no mask for it.
        """

    def last(self, events: tf.RaggedTensor) -> tf.Tensor:
        """Encodes whole histories to `[batch, dimension]`."""
        return self._last(_padded(events), tf.cast(events.row_lengths(), tf.int32))

    def prefixes(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encodes the history up to each event, this one included."""
        vectors, lengths = _padded(events), tf.cast(events.row_lengths(), tf.int32)
        longest = tf.shape(vectors)[1]
        states = self._states(vectors[:, :newest])[:, : tf.minimum(longest, newest)]
        states = tf.cond(
            longest > newest,
            lambda: tf.concat([states, self._windows(vectors, lengths, newest)], axis=1),
            lambda: states,
        )
        return tf.gather_nd(states, _places(events))

    def _last(self, vectors: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        states = self._states(vectors)
        newest = tf.gather(states, tf.maximum(lengths - 1, 0), batch_dims=1)
        return newest * tf.cast(lengths > 0, tf.float32)[:, None]

    def _states(self, vectors: tf.Tensor) -> tf.Tensor:
        # One event more, so that a batch of empty histories has something to encode.
        return self.states(tf.pad(vectors, [[0, 0], [0, 1], [0, 0]]))

    def _windows(self, vectors: tf.Tensor, lengths: tf.Tensor, newest: int) -> tf.Tensor:
        """Encodes the states after more than `newest` events, `[batch, rest, dimension]`."""
        # The window of the state after `end` events begins at `end - newest`.
        begins = tf.range(1, tf.shape(vectors)[1] - newest + 1)
        places = tf.where(begins[None, :] + newest <= lengths[:, None])
        rows = tf.cast(places[:, 0], tf.int32)
        within = tf.gather(begins, places[:, 1])[:, None] + tf.range(newest)[None, :]
        taken = tf.gather_nd(
            vectors, tf.stack([tf.broadcast_to(rows[:, None], tf.shape(within)), within], axis=-1)
        )
        encoded = self._last(taken, tf.fill(tf.shape(rows), newest))
        shape = tf.stack([tf.shape(vectors)[0], tf.shape(begins)[0], tf.shape(encoded)[1]])
        return tf.scatter_nd(tf.cast(places, tf.int32), encoded, shape)


def _places(events: tf.RaggedTensor) -> tf.Tensor:
    """Returns row and place of each event, `[num_events, 2]` int32."""
    rows = tf.cast(events.value_rowids(), tf.int32)
    starts = tf.gather(tf.cast(events.row_starts(), tf.int32), rows)
    return tf.stack([rows, tf.range(tf.shape(rows)[0]) - starts], axis=1)


def _padded(events: tf.RaggedTensor) -> tf.Tensor:
    """Returns `[batch, (events), dimension]` with zero vectors where a row is shorter."""
    values = events.values
    width = tf.reduce_max(tf.concat([[0], tf.cast(events.row_lengths(), tf.int32)], axis=0))
    shape = tf.stack([tf.cast(events.nrows(), tf.int32), width, tf.shape(values)[-1]])
    dense = tf.scatter_nd(_places(events), values, shape)
    return tf.ensure_shape(dense, [None, None, values.shape[-1]])
