"""AdamW that touches of a table only the rows that a step has used."""

from typing import Any

import tensorflow as tf
import tf_keras


class RowAdamW(tf_keras.optimizers.Adam):
    """AdamW whose moments, weights and weight decay of unused table rows stay as they are.

    Keras' AdamW decays the moments of all rows in each step and moves each of them, which costs
    several passes over tables of which a step uses a few rows: with a million candidates that is
    nearly all of its time. A row that comes back after many steps moves here as if it had come back
    at once. Dense gradients are treated as Keras does.

    Args:
        learning_rate: As of Keras' optimisers.
        decay: Weight decay, decoupled, in units of the learning rate.
        **settings: Of Keras' Adam.

    References:
        Loshchilov, Hutter. Decoupled Weight Decay Regularization. ICLR 2019. Algorithm 2.
        Shazeer, Stern. Adafactor. ICML 2018. Section 3, on Adam for sparse gradients.
    """

    def __init__(self, learning_rate: Any, decay: float = 0.0, **settings: Any) -> None:
        # The number of used rows changes in each step, and XLA would compile for each number.
        super().__init__(learning_rate, **{"jit_compile": False, **settings})
        self._decay = decay

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Moves one variable, as Keras asks for each."""
        rate = tf.cast(self.learning_rate, variable.dtype)
        if not isinstance(gradient, tf.IndexedSlices):
            if self._decay:
                variable.assign_sub(variable * rate * self._decay)
            super().update_step(gradient, variable)
            return
        # Keras has added up the gradients of rows that were used several times.
        rows, slope = gradient.indices, gradient.values
        place = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.iterations + 1, variable.dtype)
        unbiased = tf.sqrt(1 - tf.pow(self.beta_2, step)) / (1 - tf.pow(self.beta_1, step))
        momentum = self._rows(self._momentums[place], rows, slope, self.beta_1)
        velocity = self._rows(self._velocities[place], rows, tf.square(slope), self.beta_2)
        move = rate * unbiased * momentum / (tf.sqrt(velocity) + self.epsilon)
        if self._decay:
            move += rate * self._decay * tf.gather(variable, rows)
        variable.scatter_sub(tf.IndexedSlices(move, rows))

    def get_config(self) -> dict[str, Any]:
        """As of Keras' optimisers."""
        return {**super().get_config(), "decay": self._decay}

    @staticmethod
    def _rows(moment: tf.Variable, rows: tf.Tensor, fresh: tf.Tensor, beta: float) -> tf.Tensor:
        """Lets some rows of a moment follow `fresh`; returns them."""
        moved = beta * tf.gather(moment, rows) + (1 - beta) * fresh
        moment.scatter_update(tf.IndexedSlices(moved, rows))
        return moved
