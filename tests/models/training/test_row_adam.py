from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from models.training.optimizers import RowAdamW

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


def test_its_state_is_that_of_adam_so_that_a_fit_can_be_resumed():
    optimizer = RowAdamW(0.1, 0.2)
    optimizer.build([tf.Variable(START)])
    names = [variable.name for variable in optimizer.variables]
    assert len(names) == 3, names  # steps and two moments
    assert RowAdamW.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
