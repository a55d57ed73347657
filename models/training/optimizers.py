"""The optimizer and its learning rate schedule."""

from typing import Any

import tensorflow as tf
import tf_keras

from models.config import TrainingConfig


def make_optimizer(training: TrainingConfig, steps_per_epoch: int) -> tf_keras.optimizers.Optimizer:
    """Return the configured optimizer for a training run with this number of steps per epoch."""
    rate = learning_rate(training, training.epochs * steps_per_epoch)
    more: dict[str, Any] = {"global_clipnorm": training.gradient_clip_norm}
    if training.ema_momentum is not None:
        # At the end of an epoch, so that checkpoints and early stopping see the averages too.
        more |= {"use_ema": True, "ema_momentum": training.ema_momentum}
        more["ema_overwrite_frequency"] = steps_per_epoch
    if training.optimizer == "adamw":
        scale = (training.dense_learning_rate or training.learning_rate) / training.learning_rate
        return RowAdamW(rate, training.weight_decay, scale, **more)
    if training.optimizer == "sgd":
        return tf_keras.optimizers.SGD(rate, momentum=0.9, **more)
    kinds = {"adam": tf_keras.optimizers.Adam, "adagrad": tf_keras.optimizers.Adagrad}
    return kinds[training.optimizer](rate, **more)


def learning_rate(training: TrainingConfig, num_steps: int) -> Any:
    """Return Keras' learning rate schedule: linear warm-up, then constant or cosine decay to 0.

    References:
        Loshchilov, Hutter. SGDR: Stochastic Gradient Descent with Warm Restarts. 2017. Eq. 5.
    """
    warmup_steps = round(training.warmup_fraction * num_steps)
    peak = training.learning_rate
    first = 0.0 if warmup_steps else peak
    if training.schedule == "cosine":
        return tf_keras.optimizers.schedules.CosineDecay(
            first,
            max(1, num_steps - warmup_steps),
            warmup_target=peak if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    return tf_keras.optimizers.schedules.PolynomialDecay(first, max(1, warmup_steps), peak)


class RowAdamW(tf_keras.optimizers.Adam):
    """AdamW that updates only those rows of an embedding table that a step uses.

    Keras' AdamW decays the moments of all rows and moves all rows in each step. With a million
    candidates, almost all of its time is spent on these passes over the tables. Here, unused rows
    keep their moments and weights, without weight decay. Dense gradients are treated as in Keras.
    A step subtracts learning rate × `decay` × weight. The learning rate of weights that are not
    embedding tables is multiplied by `dense_scale`: rows of tables are used in few steps and need
    large ones, with which dense layers of an attention block do not converge.

    References:
        Loshchilov, Hutter. Decoupled Weight Decay Regularization. ICLR 2019. Algorithm 2.
        Shazeer, Stern. Adafactor. ICML 2018. Section 3, on Adam for sparse gradients.

    Example:
        model.compile(optimizer=RowAdamW(0.01, decay=0.05))
    """

    def __init__(
        self, learning_rate: Any, decay: float = 0.0, dense_scale: float = 1.0, **settings: Any
    ) -> None:
        # Without XLA, which would compile the step again for each number of used rows.
        super().__init__(learning_rate, **{"jit_compile": False, **settings})
        self._decay, self._dense_scale = decay, dense_scale

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Update one variable; Keras calls this."""
        rate = tf.cast(self.learning_rate, variable.dtype)
        # The name of the weight in `tf_keras.layers.Embedding`.
        if "embeddings" not in variable.name:
            rate = rate * self._dense_scale
        index = self._index_dict[self._var_key(variable)]
        moments = self._momentums[index], self._velocities[index]
        if isinstance(gradient, tf.IndexedSlices):
            # Keras has already summed the gradients of rows that the step uses several times.
            rows, slope = gradient.indices, gradient.values
            momentum = _updated_rows(moments[0], rows, slope, self.beta_1)
            velocity = _updated_rows(moments[1], rows, tf.square(slope), self.beta_2)
            weights = tf.gather(variable, rows)
        else:
            momentum = moments[0].assign_add((gradient - moments[0]) * (1 - self.beta_1))
            velocity = moments[1].assign_add((tf.square(gradient) - moments[1]) * (1 - self.beta_2))
            weights = variable
        step = tf.cast(self.iterations + 1, variable.dtype)
        unbiased = tf.sqrt(1 - tf.pow(self.beta_2, step)) / (1 - tf.pow(self.beta_1, step))
        move = rate * unbiased * momentum / (tf.sqrt(velocity) + self.epsilon)
        if self._decay:
            move += rate * self._decay * weights
        if isinstance(gradient, tf.IndexedSlices):
            variable.scatter_sub(tf.IndexedSlices(move, rows))
        else:
            variable.assign_sub(move)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "decay": self._decay, "dense_scale": self._dense_scale}


def _updated_rows(
    moment: tf.Variable, rows: tf.Tensor, values: tf.Tensor, beta: float
) -> tf.Tensor:
    """Update `rows` of a moving average and return them."""
    updated = beta * tf.gather(moment, rows) + (1 - beta) * values
    moment.scatter_update(tf.IndexedSlices(updated, rows))
    return updated
