from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from models.history_encoder import MeanHistoryEncoder

BATCH, EVENTS, DIMENSION = 3, 6, 4


class HistoryEncoderContract:
    """An encoder inherits this: what training sees is what serving asks."""

    make: Callable[[], MeanHistoryEncoder]

    @pytest.fixture(scope="class")
    def encoder(self) -> MeanHistoryEncoder:
        encoder = type(self).make()
        encoder.last(tf.zeros([1, 1, DIMENSION]), tf.ones([1, 1]))
        rng = np.random.default_rng(0)
        # An identity would hide a missing projection.
        encoder.set_weights([rng.normal(size=weight.shape) for weight in encoder.get_weights()])
        return encoder

    @pytest.fixture(scope="class")
    def vectors(self) -> tf.Tensor:
        return tf.constant(
            np.random.default_rng(1).normal(size=(BATCH, EVENTS, DIMENSION)), tf.float32
        )

    @pytest.fixture(scope="class")
    def present(self) -> tf.Tensor:
        # All; holes, as unknown candidates and dropout make them; one event and padding.
        return tf.constant([[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0]], tf.float32)

    def test_prefixes_are_the_states_before_each_event(
        self, encoder: MeanHistoryEncoder, vectors: tf.Tensor, present: tf.Tensor
    ):
        prefixes = encoder.prefixes(vectors, present, EVENTS)
        for t in range(EVENTS):
            before = encoder.last(vectors[:, :t], present[:, :t])
            np.testing.assert_allclose(prefixes[:, t], before, rtol=1e-5, atol=1e-6)

    def test_prefixes_look_no_further_back_than_serving_does(
        self, encoder: MeanHistoryEncoder, vectors: tf.Tensor, present: tf.Tensor
    ):
        prefixes = encoder.prefixes(vectors, present, 2)
        for t in range(EVENTS):
            newest = slice(max(0, t - 2), t)
            before = encoder.last(vectors[:, newest], present[:, newest])
            np.testing.assert_allclose(prefixes[:, t], before, rtol=1e-4, atol=1e-5)

    def test_pooled_is_last_without_the_padding(
        self, encoder: MeanHistoryEncoder, vectors: tf.Tensor, present: tf.Tensor
    ):
        rows = tf.repeat(tf.range(BATCH), EVENTS)
        flat = tf.reshape(vectors, [-1, DIMENSION])
        pooled = encoder.pooled(flat, tf.reshape(present, [-1]), rows, tf.constant(BATCH))
        np.testing.assert_allclose(pooled, encoder.last(vectors, present), rtol=1e-5, atol=1e-6)

    def test_pooled_gives_rows_without_events_the_empty_history(
        self, encoder: MeanHistoryEncoder, vectors: tf.Tensor
    ):
        pooled = encoder.pooled(vectors[0, :1], tf.ones([1]), tf.constant([1]), tf.constant(3))
        empty = encoder.last(tf.zeros([3, 0, DIMENSION]), tf.zeros([3, 0]))
        np.testing.assert_array_equal(pooled.numpy()[[0, 2]], empty.numpy()[[0, 2]])

    def test_padding_changes_nothing(
        self, encoder: MeanHistoryEncoder, vectors: tf.Tensor, present: tf.Tensor
    ):
        noise = tf.fill([BATCH, 2, DIMENSION], 1e3)
        padded = encoder.last(
            tf.concat([vectors, noise], axis=1), tf.pad(present, [[0, 0], [0, 2]])
        )
        np.testing.assert_allclose(padded, encoder.last(vectors, present), rtol=1e-5, atol=1e-6)

    def test_later_events_do_not_change_a_prefix(
        self, encoder: MeanHistoryEncoder, vectors: tf.Tensor, present: tf.Tensor
    ):
        changed = tf.concat([vectors[:, :4], vectors[:, 4:] + 100.0], axis=1)
        np.testing.assert_array_equal(
            encoder.prefixes(changed, present, EVENTS)[:, :5],
            encoder.prefixes(vectors, present, EVENTS)[:, :5],
        )


class TestMean(HistoryEncoderContract):
    @staticmethod
    def make() -> MeanHistoryEncoder:
        return MeanHistoryEncoder(DIMENSION)

    def test_starts_as_the_plain_mean(self):
        # (1, 3) and (3, 5), and a hole between them.
        vectors = tf.constant([[[1.0, 3.0], [9.0, 9.0], [3.0, 5.0]]])
        last = MeanHistoryEncoder(2).last(vectors, tf.constant([[1.0, 0.0, 1.0]]))
        assert last.numpy().tolist() == [[2.0, 4.0]]

    def test_an_empty_history_is_the_zero_vector(self):
        last = MeanHistoryEncoder(2).last(tf.fill([1, 3, 2], 7.0), tf.zeros([1, 3]))
        assert last.numpy().tolist() == [[0.0, 0.0]]

    def test_order_does_not_matter(
        self, encoder: MeanHistoryEncoder, vectors: tf.Tensor, present: tf.Tensor
    ):
        turned = encoder.last(vectors[:, ::-1], present[:, ::-1])
        np.testing.assert_allclose(turned, encoder.last(vectors, present), rtol=1e-5, atol=1e-6)
