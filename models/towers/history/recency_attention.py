"""The history encoder with weights by recency and a block of gated attention."""

from typing import Any

import tensorflow as tf
import tf_keras

from models.towers.feature_encoder import keep_mask
from models.towers.history.base import Band, HistoryEncoder
from models.towers.history.mean_and_recency import RecencyEncoder

_MASKED = -1e9


class RecencyAttentionEncoder(HistoryEncoder):
    """Encoder that lets each state of a `RecencyEncoder` read the states before it.

    The block has causal attention with sigmoid output gates, then a gated dense layer (SwiGLU),
    each with pre-normalisation and a residual connection. Instead of absolute positions, each head
    has a learned bias per distance between two events; distances from `positions` on share the last
    bias. A state of the attention reads states that themselves read older events, so of `newest`
    events, the recency encoder reads up to half, and the attention the rest. `heads` must divide
    `dimension`. `dropout` hides values that the attention and the dense layer add.

    References:
        Kang, McAuley. Self-Attentive Sequential Recommendation. ICDM 2018.
        Shazeer. GLU Variants Improve Transformer. 2020. Eq. 6.
        Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer. JMLR 2020. Section 2.1, relative position biases.

    Example:
        encoder = RecencyAttentionEncoder(64, 50, recency_heads=4, heads=2, dropout=0.2)
        states = encoder.last(tower.vectors(tf.ragged.constant([[4, 8], [15]])), 512)  # [2, 64]
    """

    def __init__(
        self, dimension: int, positions: int, recency_heads: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self._heads, self._width, self._positions = heads, dimension // heads, positions
        self._dropout = dropout
        self._recency = RecencyEncoder(dimension, positions, recency_heads)
        self._attention_norm = tf_keras.layers.LayerNormalization()
        self._inputs = tf_keras.layers.Dense(4 * dimension, use_bias=False)
        self._distance_biases = self.add_weight(
            name="distance_biases", shape=[heads, positions], initializer="zeros"
        )
        # The block adds nothing at first, so training starts as that of the recency encoder.
        zeros: dict[str, Any] = {"use_bias": False, "kernel_initializer": "zeros"}
        self._output = tf_keras.layers.Dense(dimension, **zeros)
        self._dense_norm = tf_keras.layers.LayerNormalization()
        self._wide = tf_keras.layers.Dense(8 * dimension, use_bias=False)
        self._narrow = tf_keras.layers.Dense(dimension, **zeros)
        self._norm = tf_keras.layers.LayerNormalization()

    def last(self, events: tf.RaggedTensor, newest: int) -> tf.Tensor:
        """Encode whole histories to `[batch, dimension]`."""
        recency_reach, reach = self._reaches(newest)
        states = self._recency.prefixes(events, recency_reach)
        rows = events.with_values(tf.range(1, tf.shape(states)[0] + 1))
        key_rows = rows[:, -reach:]
        lengths = tf.cast(key_rows.row_lengths(), tf.int32)
        # Row 0 is for padding and empty histories.
        states = tf.pad(states, [[1, 0], [0, 0]])
        newest_rows = tf.where(lengths > 0, tf.cast(rows.row_limits(), tf.int32), 0)
        queries, keys, values, gates = self._projected(states)
        key_rows = key_rows.to_tensor()
        ages = lengths[:, None] - 1 - tf.range(tf.shape(key_rows)[1])[None, :]
        attended = self._attend(
            tf.gather(queries, newest_rows)[:, None],
            tf.gather(keys, key_rows),
            tf.gather(values, key_rows),
            tf.transpose(self._biases(ages), [1, 0, 2])[:, :, None],
            (ages >= 0)[:, None],
        )
        states, gates = tf.gather(states, newest_rows), tf.gather(gates, newest_rows)
        encoded = self._finished(states, attended[:, 0], gates, None)
        return encoded * tf.cast(lengths > 0, tf.float32)[:, None]

    def prefixes(
        self, events: tf.RaggedTensor, newest: int, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Encode the history up to and including each event."""
        recency_reach, reach = self._reaches(newest)
        states = self._recency.prefixes(events, recency_reach)
        queries, keys, values, gates = self._projected(states)
        longest = tf.reduce_max(tf.pad(tf.cast(events.row_lengths(), tf.int32), [[1, 0]]))
        band = Band(events, tf.clip_by_value(longest, 1, reach))
        attended = self._attend(
            band.queries(queries),
            band.keys(keys),
            band.keys(values),
            self._biases(band.ages)[None],
            band.visible,
        )
        return self._finished(states, band.events(attended), gates, seed)

    def _reaches(self, newest: int) -> tuple[int, int]:
        """Return how many states back the recency encoder and the attention read."""
        recency_reach = min(self._positions, -(-newest // 2))
        return recency_reach, newest - recency_reach + 1

    def _projected(self, states: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the queries, keys, values and gates of the attention."""
        return tuple(tf.split(self._inputs(self._attention_norm(states)), 4, axis=-1))

    def _biases(self, ages: tf.Tensor) -> tf.Tensor:
        """Return the biases `[heads, ...]` of distances `[...]`."""
        ages = tf.clip_by_value(ages, 0, self._positions - 1)
        return tf.gather(self._distance_biases, ages, axis=1)

    def _attend(
        self,
        queries: tf.Tensor,
        keys: tf.Tensor,
        values: tf.Tensor,
        biases: tf.Tensor,
        visible: tf.Tensor,
    ) -> tf.Tensor:
        """Return the weighted means of `values` `[n, keys, dimension]`, `[n, queries, dimension]`.

        `visible` is `[n, queries, keys]`, and `biases` has another axis for the heads before them.
        """
        queries, keys, values = map(self._split_heads, (queries, keys, values))
        logits = tf.matmul(queries, keys, transpose_b=True) * self._width**-0.5 + biases
        shares = tf.nn.softmax(tf.where(visible[:, None], logits, _MASKED))
        attended = tf.transpose(tf.matmul(shares, values), [0, 2, 1, 3])
        shape = tf.concat([tf.shape(attended)[:2], [self._heads * self._width]], axis=0)
        return tf.ensure_shape(tf.reshape(attended, shape), [None, None, self._heads * self._width])

    def _split_heads(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return `[n, events, dimension]` as `[n, heads, events, width]`."""
        shape = tf.concat([tf.shape(vectors)[:2], [self._heads, self._width]], axis=0)
        return tf.transpose(tf.reshape(vectors, shape), [0, 2, 1, 3])

    def _finished(
        self, states: tf.Tensor, attended: tf.Tensor, gates: tf.Tensor, seed: tf.Tensor | None
    ) -> tf.Tensor:
        added = self._output(attended * tf.sigmoid(gates))
        states += self._hidden(added, seed)
        gate, value = tf.split(self._wide(self._dense_norm(states)), 2, axis=-1)
        added = self._narrow(tf.nn.silu(gate) * value)
        states += self._hidden(added, None if seed is None else seed + 1)
        return self._norm(states)

    def _hidden(self, values: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        if seed is None or not self._dropout:
            return values
        return values * keep_mask(tf.shape(values), self._dropout, seed) / (1.0 - self._dropout)
