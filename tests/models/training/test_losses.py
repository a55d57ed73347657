from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from models.training import losses
from models.training.losses import (
    draw_negatives,
    full_softmax,
    rows_candidates,
    sampled_rows_softmax,
    sampled_softmax,
)

NUM, DIMENSION = 20, 4


CANDIDATES = tf.constant(np.random.default_rng(0).normal(size=(NUM, DIMENSION)), tf.float32)
QUERIES = tf.constant(np.random.default_rng(1).normal(size=(3, DIMENSION)), tf.float32)
TARGETS = tf.constant([4, 4, 17])


def test_full_softmax_of_a_hand_worked_example():
    logits = tf.math.log([[1.0, 3.0], [4.0, 1.0]])
    rows, targets = tf.constant([0, 0, 1]), tf.constant([0, 1, 0])
    # Probabilities 1/4, 3/4 and 4/5.
    each = [math.log(4), math.log(4 / 3), math.log(5 / 4)]
    loss = full_softmax(logits, rows, targets, tf.ones([3]))
    assert float(loss) == pytest.approx(sum(each) / 3)
    weighted = full_softmax(logits, rows, targets, tf.constant([1.0, 0.0, 2.0]))
    assert float(weighted) == pytest.approx((each[0] + 2 * each[2]) / 3)


def sampled(negatives: tf.Tensor, log_expected: tf.Tensor) -> float:
    targets, vectors = tf.gather(CANDIDATES, TARGETS), tf.gather(CANDIDATES, negatives)
    weights = tf.ones([3])
    return float(
        sampled_softmax(QUERIES, targets, vectors, TARGETS, negatives, log_expected, weights)
    )


def full() -> float:
    logits = tf.matmul(QUERIES, CANDIDATES, transpose_b=True)
    return float(full_softmax(logits, tf.range(3), TARGETS, tf.ones([3])))


def test_the_whole_catalogue_as_negatives_is_the_full_softmax():
    # Each candidate once, its log expected count 0; the target itself is an accidental hit.
    loss = sampled(tf.range(NUM), tf.zeros([NUM]))
    assert loss == pytest.approx(full(), rel=1e-5)


def test_more_negatives_come_nearer_to_the_full_softmax():
    frequency = np.random.default_rng(2).dirichlet(np.ones(NUM))
    log_frequency = tf.constant(np.log(frequency), tf.float32)

    def mean_error(num_uniform: int) -> float:
        found = []
        for seed in range(20):
            # In-batch negatives come from where targets do: the frequencies.
            batch = np.random.default_rng(seed).choice(NUM, num_uniform, p=frequency)
            negatives, log_expected = draw_negatives(
                tf.constant(batch, tf.int32),
                tf.range(NUM),
                log_frequency,
                num_uniform,
                tf.constant([seed, 0]),
            )
            found.append(sampled(negatives, log_expected))
        return abs(float(np.mean(found)) - full())

    assert mean_error(20_000) < 0.01
    assert mean_error(20_000) < mean_error(5)


def test_negatives_are_the_batch_and_uniform_ones_with_their_expected_counts():
    log_frequency = tf.math.log([0.5, 0.25, 0.125, 0.125])
    targets = tf.constant([0, 2])
    warm, seed = tf.range(4), tf.constant([1, 2])
    negatives, log_expected = draw_negatives(targets, warm, log_frequency, 8, seed)
    assert negatives.shape == (10,)
    assert set(negatives.numpy()[:2].tolist()) == {0, 2}
    # 2 from the batch by frequency, and 8 / 4 = 2 uniform ones each.
    expected = np.array([2 * 0.5 + 2, 2 * 0.25 + 2, 2 * 0.125 + 2, 2 * 0.125 + 2])
    np.testing.assert_allclose(np.exp(log_expected), expected[negatives.numpy()], rtol=1e-5)
    # Long timelines do not make more negatives.
    many = tf.zeros([10_000], tf.int32)
    assert draw_negatives(many, warm, log_frequency, 16, seed)[0].shape == (32,)
    # A candidate without events is never drawn, and the others are drawn more often instead.
    warm = tf.constant([0, 1, 2])
    negatives, log_expected = draw_negatives(targets, warm, log_frequency, 96, seed)
    assert set(negatives.numpy().tolist()) == {0, 1, 2}
    expected = np.array([2 * 0.5 + 32, 2 * 0.25 + 32, 2 * 0.125 + 32])
    np.testing.assert_allclose(np.exp(log_expected), expected[negatives.numpy()], rtol=1e-5)


def test_hand_worked_negatives_count_by_score_and_correction_and_only_the_hardest():
    def loss(hardest: int) -> float:
        return float(
            sampled_softmax(
                tf.constant([[1.0]]),
                tf.math.log([[2.0]]),
                # By score 8, 6, 3; the target's own 9 does not count among them. Expected twice,
                # once and three times, they count 4, 6 and 1.
                tf.math.log([[3.0], [9.0], [8.0], [6.0]]),
                tf.constant([0]),
                tf.constant([1, 0, 2, 3]),
                tf.math.log([3.0, 1.0, 2.0, 1.0]),
                tf.ones([1]),
                hardest,
            )
        )

    assert loss(1) == pytest.approx(math.log((2 + 4) / 2))
    assert loss(2) == pytest.approx(math.log((2 + 4 + 6) / 2))
    assert loss(3) == loss(0) == loss(100) == pytest.approx(math.log((2 + 4 + 6 + 1) / 2))


def test_a_row_of_logits_has_its_own_targets_exactly_and_weighs_the_other_negatives():
    # Row 0 has the targets 5 and 7, the second one twice; row 1 has the target 2.
    rows, targets = tf.constant([0, 0, 0, 1]), tf.constant([5, 7, 7, 2])
    # 5 is drawn twice, expected 4 times; 9 is drawn once, expected half a time.
    negatives, log_expected = tf.constant([5, 9, 5]), tf.math.log([4.0, 0.5, 4.0])
    candidates, own, log_weights = rows_candidates(targets, negatives, log_expected)
    assert candidates.numpy().tolist() == [5, 7, 2, 9]
    assert own.numpy().tolist() == [0, 1, 1, 2]
    exponentials = [[3.0, 2.0, 50.0, 1.0], [6.0, 70.0, 4.0, 5.0]]
    weights = tf.constant([1.0, 0.5, 0.5, 2.0])
    loss = sampled_rows_softmax(tf.math.log(exponentials), rows, own, log_weights, weights)
    # Row 0: 3 + 2 exact, and 9 with 1 / 0.5. Row 1: 4 exact, 5 with 6 * 2 / 4, 9 with 5 / 0.5.
    first, second = 3 + 2 + 2, 4 + 3 + 10
    expected = math.log(first / 3) + math.log(first / 2) + 2 * math.log(second / 4)
    assert float(loss) == pytest.approx(expected / 4, rel=1e-5)


@pytest.mark.parametrize("logits_a_block", [1, 2 * NUM, 10_000_000])
def test_gradients_are_those_of_the_definition_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, logits_a_block: int
):
    monkeypatch.setattr(losses, "_LOGITS_PER_BLOCK", logits_a_block)
    rng = np.random.default_rng(5)
    queries = tf.constant(rng.normal(size=(7, DIMENSION)), tf.float32)
    positives = tf.constant(rng.normal(size=(7, DIMENSION)), tf.float32)
    targets = tf.constant(rng.integers(0, NUM, 7), tf.int32)
    log_expected = tf.constant(rng.normal(size=NUM), tf.float32)
    weights = tf.constant(rng.uniform(size=7), tf.float32)
    inputs = [queries, positives, CANDIDATES]

    def definition() -> tf.Tensor:
        own = tf.reduce_sum(queries * positives, axis=1, keepdims=True)
        others = tf.matmul(queries, CANDIDATES, transpose_b=True) - log_expected
        others -= 1e9 * tf.one_hot(targets, NUM)
        each = tf.reduce_logsumexp(tf.concat([own, others], axis=1), axis=1) - own[:, 0]
        return tf.reduce_sum(weights * each) / tf.reduce_sum(weights)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        expected = definition()
        # Twice, so that the gradient from above is not one.
        loss = sampled_softmax(
            queries, positives, CANDIDATES, targets, tf.range(NUM), log_expected, weights
        )
        doubled = 2 * loss
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(
        tape.gradient(doubled, inputs), tape.gradient(expected, inputs), strict=True
    ):
        np.testing.assert_allclose(one, 2 * other, rtol=1e-4, atol=1e-6)


def test_without_events_there_is_nothing_to_learn():
    nothing, no_vectors = tf.zeros([0], tf.int32), tf.zeros([0, DIMENSION])
    every, seed = tf.range(NUM), tf.constant([1, 2])
    negatives, log_expected = draw_negatives(nothing, every, tf.zeros([NUM]), 4, seed)
    assert negatives.shape == (4,)
    vectors = tf.Variable(tf.ones([4, DIMENSION]))
    with tf.GradientTape() as tape:
        loss = sampled_softmax(
            no_vectors, no_vectors, vectors, nothing, negatives, log_expected, tf.zeros([0])
        )
    assert float(loss) == 0.0
    assert np.all(np.isfinite(tape.gradient(loss, vectors)))
