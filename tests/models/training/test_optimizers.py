from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.config import TrainingConfig
from models.training.optimizers import RowAdamW, learning_rate, make_optimizer


def rates(steps: int, **settings: Any) -> list[float]:
    schedule = learning_rate(TrainingConfig(learning_rate=0.1, **settings), steps)
    return [float(schedule(step)) for step in range(steps + 1)]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [0.1] * 11),
        ("constant", 0.4, [0, 0.025, 0.05, 0.075, *[0.1] * 7]),
        # (1 + cos(pi step / 10)) / 2 at 0, 5 and 10.
        ("cosine", 0, {0: 0.1, 5: 0.05, 10: 0.0}),
        ("cosine", 0.2, {0: 0, 1: 0.05, 2: 0.1, 6: 0.05, 10: 0.0}),
    ],
)
def test_the_rate_follows_warm_up_and_schedule(
    schedule: str, warmup: float, expected: list[float] | dict[int, float]
):
    found = rates(10, schedule=schedule, warmup_fraction=warmup)
    steps = expected if isinstance(expected, dict) else dict(enumerate(expected))
    assert {step: found[step] for step in steps} == pytest.approx(steps, abs=1e-7)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adagrad", "sgd"])
def test_every_optimizer_goes_downhill(optimizer: str):
    training = TrainingConfig(
        optimizer=optimizer, learning_rate=0.1, schedule="constant", warmup_fraction=0
    )
    variable = tf.Variable([3.0, -4.0])
    made = make_optimizer(training, 1)
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


START = np.arange(8.0, dtype=np.float32).reshape(4, 2) + 1
SLOPES = [np.random.default_rng(step).normal(size=(4, 2)).astype(np.float32) for step in range(5)]


def test_dense_gradients_and_rows_used_in_every_step_move_as_with_keras():
    dense, rows, keras = (tf.Variable(START) for _ in range(3))
    keras_adamw = tf_keras.optimizers.AdamW(0.1, weight_decay=0.2)
    one, other = RowAdamW(0.1, 0.2), RowAdamW(0.1, 0.2)
    for slope in SLOPES:
        keras_adamw.apply_gradients([(tf.constant(slope), keras)])
        one.apply_gradients([(tf.constant(slope), dense)])
        # Out of order, and one row in two parts.
        parts = tf.constant(
            np.stack([slope[2], slope[0] / 4, slope[1], slope[0] * 3 / 4, slope[3]])
        )
        slices = tf.IndexedSlices(parts, tf.constant([2, 0, 1, 0, 3]), tf.constant([4, 2]))
        other.apply_gradients([(slices, rows)])
    np.testing.assert_allclose(dense, keras, rtol=1e-5)
    np.testing.assert_allclose(rows, keras, rtol=1e-5)


def test_rows_that_are_not_used_stay_as_they_are():
    table = tf.Variable(START)
    optimizer = RowAdamW(0.1, 0.2)
    for step in range(5):
        slices = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([step % 2]), tf.constant([4, 2]))
        optimizer.apply_gradients([(slices, table)])
    np.testing.assert_array_equal(table[2:], START[2:])
    assert np.all(table[:2] < START[:2])


def test_weights_that_are_not_tables_may_have_a_rate_of_their_own():
    table, kernel = tf.Variable(START, name="x/embeddings"), tf.Variable(START, name="x/kernel")
    training = TrainingConfig(
        learning_rate=0.1, dense_learning_rate=0.02, schedule="constant", warmup_fraction=0
    )
    slope = tf.constant(SLOPES[0])
    make_optimizer(training, 1).apply_gradients([(slope, table), (slope, kernel)])
    np.testing.assert_allclose(START - table, 5 * (START - kernel), rtol=1e-3)


def test_its_state_is_that_of_adam_so_that_a_fit_can_be_resumed():
    optimizer = RowAdamW(0.1, 0.2)
    optimizer.build([tf.Variable(START)])
    names = [variable.name for variable in optimizer.variables]
    assert len(names) == 3, names  # steps and two moments
    assert RowAdamW.from_config(optimizer.get_config()).get_config() == optimizer.get_config()


def test_the_weights_are_their_averages_at_the_end_of_an_epoch():
    settings = {"schedule": "constant", "warmup_fraction": 0, "learning_rate": 0.1}
    plain, averaged = (
        make_optimizer(TrainingConfig(ema_momentum=momentum, **settings), 4)
        for momentum in (None, 0.8)
    )
    one, other = tf.Variable(START, name="embeddings"), tf.Variable(START, name="embeddings")
    average = START
    for step, slope in enumerate(SLOPES[:4]):
        rows = tf.IndexedSlices(slope[:2], tf.constant([step % 3, 3]), tf.constant([4, 2]))
        np.testing.assert_allclose(one, other)
        plain.apply_gradients([(rows, one)])
        averaged.apply_gradients([(rows, other)])
        average = 0.8 * average + 0.2 * one.numpy()
    np.testing.assert_allclose(other, average, rtol=1e-5)
