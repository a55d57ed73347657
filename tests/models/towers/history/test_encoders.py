from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.config import ModelConfig
from models.towers.candidate_and_query import make_history_encoder
from models.towers.history.base import Band, HistoryEncoder
from models.towers.history.mean_and_recency import MeanEncoder, RecencyEncoder

DIMENSION = 4
LENGTHS = [7, 0, 3, 1]


def histories(lengths: list[int], seed: int = 1) -> tf.RaggedTensor:
    rng = np.random.default_rng(seed)
    values = tf.constant(rng.normal(size=(sum(lengths), DIMENSION)), tf.float32)
    return tf.RaggedTensor.from_row_lengths(values, tf.constant(lengths, tf.int64))


class HistoryEncoderContract:
    """An encoder inherits this: what training sees is what serving asks."""

    settings: dict[str, Any]
    reads_order = True

    @pytest.fixture(scope="class")
    def encoder(self) -> HistoryEncoder:
        encoder = make_history_encoder(ModelConfig(dimension=DIMENSION, **type(self).settings))
        encoder.last(histories([1]), 9)
        rng = np.random.default_rng(0)
        # As initialised an encoder may be simpler than it can become.
        encoder.set_weights([rng.normal(size=w.shape) / 2 for w in encoder.get_weights()])
        return encoder

    @pytest.mark.parametrize("newest", [1, 2, 3, 4, 6, 7, 100])
    def test_prefixes_are_what_serving_would_see_before_each_event(
        self, encoder: HistoryEncoder, newest: int
    ):
        events = histories(LENGTHS)
        prefixes = encoder.prefixes(events, newest)
        assert prefixes.shape == (sum(LENGTHS), DIMENSION)
        trained = events.with_values(prefixes)
        for t in range(max(LENGTHS)):
            served = encoder.last(events[:, : t + 1][:, -newest:], newest)
            for row, length in enumerate(LENGTHS):
                if t < length:
                    np.testing.assert_allclose(trained[row][t], served[row], rtol=1e-4, atol=1e-5)

    def test_many_and_long_histories_are_no_exception(self, encoder: HistoryEncoder):
        events = histories([1, 150, 64, 0, 63, 3])
        trained = events.with_values(encoder.prefixes(events, 20))
        for row, t in ((0, 0), (1, 0), (1, 63), (1, 149), (2, 0), (2, 63), (4, 62), (5, 2)):
            served = encoder.last(events[row : row + 1, : t + 1][:, -20:], 20)
            np.testing.assert_allclose(trained[row][t], served[0], rtol=1e-3, atol=1e-4)

    def test_an_empty_history_is_the_zero_vector(self, encoder: HistoryEncoder):
        empty = histories([0, 0])
        assert encoder.last(empty, 5).numpy().tolist() == [[0.0] * DIMENSION] * 2
        assert encoder.prefixes(empty, 5).shape == (0, DIMENSION)
        assert encoder.last(histories([]), 5).shape == (0, DIMENSION)

    def test_order_matters_unless_events_are_averaged(self, encoder: HistoryEncoder):
        events = histories([5])
        turned = events.with_values(events.values[::-1])
        change = np.max(np.abs(encoder.last(turned, 9) - encoder.last(events, 9)))
        assert change > 1e-3 if self.reads_order else change < 1e-4

    def test_every_weight_learns_from_the_prefixes(self, encoder: HistoryEncoder):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(encoder.prefixes(histories([5, 3]), 3) ** 3)
        for variable, gradient in zip(
            encoder.trainable_variables,
            tape.gradient(total, encoder.trainable_variables),
            strict=True,
        ):
            assert gradient is not None, variable.name
            assert np.any(tf.convert_to_tensor(gradient) != 0), variable.name

    def test_it_works_in_a_graph_of_unknown_shape(self, encoder: HistoryEncoder):
        @tf.function(
            input_signature=[tf.RaggedTensorSpec([None, None, DIMENSION], ragged_rank=1)],
            autograph=False,
        )
        def both(events: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
            return encoder.last(events, 9), encoder.prefixes(events, 3)

        for lengths in (LENGTHS, [0], [2, 9]):
            last, prefixes = both(histories(lengths))
            expected = encoder.last(histories(lengths), 9)
            np.testing.assert_allclose(last, expected, rtol=1e-4, atol=1e-5)
            assert prefixes.shape == (sum(lengths), DIMENSION)


class TestMean(HistoryEncoderContract):
    settings = {"history_encoder": "mean"}
    reads_order = False

    def test_starts_as_the_plain_mean(self):
        events = tf.RaggedTensor.from_row_lengths(tf.constant([[1.0, 3.0], [3.0, 5.0]]), [2])
        assert MeanEncoder(2).last(events, 9).numpy().tolist() == [[2.0, 4.0]]


class TestRecency(HistoryEncoderContract):
    settings = {"history_encoder": "recency", "recency_positions": 4, "recency_heads": 3}

    def test_starts_as_the_mean_of_its_decays(self):
        # Half lives of 1/3 and 2 events: weights 1, 1/8 and 1, 2**-.5.
        events = tf.RaggedTensor.from_row_lengths(tf.constant([[0.0, 1.0], [1.0, 0.0]]), [2])
        fast, slow = np.array([1, 1 / 8]), np.array([1, 2**-0.5])
        expected = (fast / fast.sum() + slow / slow.sum()) / 2
        last = RecencyEncoder(2, positions=2, heads=2).last(events, 9)
        np.testing.assert_allclose(last, [expected], rtol=1e-5)

    def test_events_beyond_its_places_do_not_count(self, encoder: HistoryEncoder):
        events = histories([9])
        np.testing.assert_allclose(
            encoder.last(events, 9), encoder.last(events[:, -4:], 9), rtol=1e-4, atol=1e-5
        )


class TestRecencyAttention(HistoryEncoderContract):
    settings = {
        "history_encoder": "recency_attention",
        "attention_heads": 2,
        "recency_positions": 3,
        "recency_heads": 2,
    }

    def test_the_attention_reads_what_is_beyond_the_places_of_recency(
        self, encoder: HistoryEncoder
    ):
        events = histories([9])
        oldest = tf.concat([events.values[:1] + 1.0, events.values[1:]], axis=0)
        changed = encoder.last(events.with_values(oldest), 9) - encoder.last(events, 9)
        assert np.max(np.abs(changed)) > 1e-3

    def test_dropout_is_determined_by_the_seed(self, encoder: HistoryEncoder):
        one, same, other = (
            encoder.prefixes(histories(LENGTHS), 9, tf.constant([seed, 0])) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, same)
        assert np.any(one != other)


def test_a_band_grows_with_the_events_and_not_with_the_longest_history():
    # Padded to the longest history, there would be 512 * 512 * 512 pairs.
    band = Band(histories([512] + [1] * 511), 512)
    assert tuple(band.visible.shape) == (16, 64, 64 + 511)
    assert int(tf.math.count_nonzero(band.visible)) >= 512 * 513 // 2 + 511
