"""The history through a recurrent network."""

import tensorflow as tf
import tf_keras

from models.towers.history.encoder import PaddedEncoder


class GruEncoder(PaddedEncoder):
    """Keras' GRU over the events' vectors; the state after the newest event.

    References:
        Hidasi et al. Session-based Recommendations with Recurrent Neural Networks. ICLR 2016.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self._gru = tf_keras.layers.GRU(dimension, return_sequences=True, name="history_gru")

    def states(self, vectors: tf.Tensor) -> tf.Tensor:
        """Encodes `[batch, events, dimension]` to the states after each event."""
        return self._gru(vectors)
