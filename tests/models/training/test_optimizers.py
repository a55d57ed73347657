from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.config import TrainingConfig
from models.training.optimizers import learning_rate, make_optimizer


def rates(steps: int, **settings: Any) -> list[float]:
    schedule = learning_rate(TrainingConfig(learning_rate=0.1, **settings), steps)
    return [float(schedule(step)) for step in range(steps + 1)]


def test_a_constant_rate_stays():
    assert rates(4, schedule="constant", warmup_fraction=0) == pytest.approx([0.1] * 5)


def test_a_warm_up_rises_in_equal_steps():
    rising = rates(10, schedule="constant", warmup_fraction=0.4)
    assert rising == pytest.approx([0, 0.025, 0.05, 0.075, *[0.1] * 7])


def test_a_cosine_is_half_way_at_half_time_and_ends_at_zero():
    falling = rates(8, schedule="cosine", warmup_fraction=0)
    # (1 + cos(pi step / 8)) / 2 at 0, 4 and 8.
    assert falling[0] == pytest.approx(0.1)
    assert falling[4] == pytest.approx(0.05)
    assert falling[8] == pytest.approx(0.0, abs=1e-8)
    assert falling == sorted(falling, reverse=True)


def test_a_cosine_begins_where_the_warm_up_ends():
    both = rates(10, schedule="cosine", warmup_fraction=0.2)
    assert both[:3] == pytest.approx([0, 0.05, 0.1])
    assert both[6] == pytest.approx(0.05)
    assert both[10] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adagrad", "sgd"])
def test_every_optimizer_goes_downhill(optimizer: str):
    training = TrainingConfig(
        optimizer=optimizer, learning_rate=0.1, schedule="constant", warmup_fraction=0
    )
    variable = tf.Variable([3.0, -4.0])
    made = make_optimizer(training, 10)
    for _ in range(10):
        made.apply_gradients([(2 * variable, variable)])
    assert float(tf.norm(variable)) < 4.9


def test_gradients_are_clipped_together():
    training = TrainingConfig(
        optimizer="sgd",
        learning_rate=1.0,
        schedule="constant",
        warmup_fraction=0,
        gradient_clip_norm=1.0,
    )
    one, other = tf.Variable([0.0]), tf.Variable([0.0])
    # A norm of 50 becomes 1: 30/50 and 40/50.
    make_optimizer(training, 1).apply_gradients([([30.0], one), ([40.0], other)])
    np.testing.assert_allclose([one.numpy()[0], other.numpy()[0]], [-0.6, -0.8], rtol=1e-5)
