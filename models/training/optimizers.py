"""The optimiser of a fit, and how its learning rate moves over the steps."""

from typing import Any, TypeAlias

import tf_keras

from models.training.config import TrainingConfig
from models.training.row_adam import RowAdamW

Schedule: TypeAlias = Any  # of tf_keras.optimizers.schedules.LearningRateSchedule


def make_optimizer(training: TrainingConfig, num_steps: int) -> tf_keras.optimizers.Optimizer:
    """Returns the optimiser that the settings describe.

    Args:
        training: Optimiser, learning rate, schedule, clipping and weight decay.
        num_steps: Steps of the whole fit, which a schedule spans.
    """
    rate = learning_rate(training, num_steps)
    clip = training.gradient_clip_norm
    if training.optimizer == "adamw":
        return RowAdamW(rate, training.weight_decay, global_clipnorm=clip)
    if training.optimizer == "adam":
        return tf_keras.optimizers.Adam(rate, global_clipnorm=clip)
    if training.optimizer == "adagrad":
        return tf_keras.optimizers.Adagrad(rate, global_clipnorm=clip)
    return tf_keras.optimizers.SGD(rate, momentum=0.9, global_clipnorm=clip)


def learning_rate(training: TrainingConfig, num_steps: int) -> Schedule:
    """Returns the learning rate by step: a linear rise from zero, then constant or half a cosine.

    References:
        Loshchilov, Hutter. SGDR: Stochastic Gradient Descent with Warm Restarts. 2017. Eq. 5.
    """
    warmup_steps = round(training.warmup_fraction * num_steps)
    if training.schedule == "cosine":
        return tf_keras.optimizers.schedules.CosineDecay(
            0.0 if warmup_steps else training.learning_rate,
            max(1, num_steps - warmup_steps),
            warmup_target=training.learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    return tf_keras.optimizers.schedules.PolynomialDecay(
        0.0 if warmup_steps else training.learning_rate,
        max(1, warmup_steps),
        end_learning_rate=training.learning_rate,
    )
