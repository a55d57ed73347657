"""History encoders that read the events in sequence: a GRU and causal self-attention."""

import tensorflow as tf
import tf_keras

from models.towers.history.base import PaddedEncoder

_MASK = 1e9


class GruEncoder(PaddedEncoder):
    """Encoder that runs a Keras GRU over the events' vectors.

    References:
        Hidasi et al. Session-based Recommendations with Recurrent Neural Networks. ICLR 2016.

    Example:
        encoder = GruEncoder(dimension=64)
        states = encoder.last(tower.vectors(tf.ragged.constant([[4, 8], [15]])))  # [2, 64]
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self._gru = tf_keras.layers.GRU(dimension, return_sequences=True, name="history_gru")

    def states(self, vectors: tf.Tensor) -> tf.Tensor:
        """Encode `[batch, events, dimension]` to the state after each event."""
        return self._gru(vectors)


class SelfAttentionEncoder(PaddedEncoder):
    """Encoder with blocks of causal self-attention and dense layers.

    Instead of absolute positions, each head has a learned bias per distance between two events. The
    state of a sequence of events therefore does not depend on its position in a timeline. Distances
    from `distances` on share the last bias. `heads` must divide `dimension`.

    References:
        Kang, McAuley. Self-Attentive Sequential Recommendation. ICDM 2018.
        Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer. JMLR 2020. Section 2.1, relative position biases.

    Example:
        encoder = SelfAttentionEncoder(dimension=64, layers=2, heads=2, distances=50)
        states = encoder.last(tower.vectors(tf.ragged.constant([[4, 8], [15]])))  # [2, 64]
    """

    def __init__(self, dimension: int, layers: int, heads: int, distances: int) -> None:
        super().__init__()
        self._blocks = [_Block(dimension, heads, distances) for _ in range(layers)]
        self._norm = tf_keras.layers.LayerNormalization(name="history_norm")

    def states(self, vectors: tf.Tensor) -> tf.Tensor:
        """Encode `[batch, events, dimension]` to the state after each event."""
        for block in self._blocks:
            vectors = block(vectors)
        return self._norm(vectors)


class _Block(tf_keras.layers.Layer):
    """Attention and dense layers, each with pre-normalisation and a residual connection."""

    def __init__(self, dimension: int, heads: int, distances: int) -> None:
        super().__init__()
        self._heads, self._width, self._distances = heads, dimension // heads, distances
        self._attention_norm = tf_keras.layers.LayerNormalization()
        self._inputs = tf_keras.layers.Dense(3 * dimension, use_bias=False)
        self._output = tf_keras.layers.Dense(dimension, use_bias=False)
        self._biases = self.add_weight(
            name="distance_biases", shape=[heads, distances], initializer="zeros"
        )
        self._dense_norm = tf_keras.layers.LayerNormalization()
        self._wide = tf_keras.layers.Dense(4 * dimension, activation="gelu")
        self._narrow = tf_keras.layers.Dense(dimension)

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """Transform `[batch, events, dimension]` to the same shape."""
        vectors += self._attend(self._attention_norm(vectors))
        return vectors + self._narrow(self._wide(self._dense_norm(vectors)))

    def _attend(self, vectors: tf.Tensor) -> tf.Tensor:
        batch, events = tf.shape(vectors)[0], tf.shape(vectors)[1]
        shape = tf.stack([batch, events, 3 * self._heads, self._width])
        queries, keys, values = tf.split(tf.reshape(self._inputs(vectors), shape), 3, axis=2)
        logits = tf.einsum("bihd,bjhd->bhij", queries, keys) * self._width**-0.5
        distances = tf.range(events)[:, None] - tf.range(events)[None, :]
        known = tf.clip_by_value(distances, 0, self._distances - 1)
        logits += tf.gather(self._biases, known, axis=1)
        logits -= _MASK * tf.cast(distances < 0, tf.float32)
        attended = tf.einsum("bhij,bjhd->bihd", tf.nn.softmax(logits), values)
        return self._output(tf.ensure_shape(tf.reshape(attended, tf.shape(vectors)), vectors.shape))
