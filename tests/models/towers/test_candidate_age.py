"""The function of a candidate's age, as a product of coordinates."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from models.features.spec import MISSING_TIME
from models.towers.candidate_age import CandidateAge

DAY = 86_400
NOW = 1_700_000_000


def scores(age: CandidateAge, times: list[int], starts: list[int]) -> np.ndarray:
    queries, candidates = (tf.constant(of, tf.int64) for of in (times, starts))
    products = tf.matmul(age.of_queries(queries), age.of_candidates(candidates), transpose_b=True)
    return np.array(products)


def test_the_product_is_a_sum_of_decays_of_the_age():
    age = CandidateAge(NOW)
    age.set_weights([np.array([1.0, -2.0, 0.5, 3.0, 0.1], np.float32)])
    times = [NOW - 30 * DAY, NOW, NOW + 20 * DAY]
    starts = [NOW - 200 * DAY, NOW - 33 * DAY, NOW - 30 * DAY, NOW - 60]
    found = scores(age, times, starts)
    for row, time in zip(found, times, strict=True):
        for score, start in zip(row, starts, strict=True):
            if start <= time:
                days = np.array((time - start) / DAY)
                decays = np.exp(-days / [1, 3, 9, 27, 81]) @ [1, -2, 0.5, 3, 0.1]
                np.testing.assert_allclose(score, decays, atol=2e-4)


def test_far_from_the_reference_a_short_decay_is_the_same_for_all_candidates():
    age = CandidateAge(NOW)
    age.set_weights([np.array([1.0, 0, 0, 0, 0], np.float32)])
    past = NOW - 100 * DAY
    np.testing.assert_allclose(scores(age, [past], [past, past - DAY, past - 50 * DAY]), 1.0)


def test_a_time_that_is_not_given_has_no_influence():
    age = CandidateAge(NOW)
    age.set_weights([np.ones(5, np.float32)])
    found = scores(age, [NOW, MISSING_TIME], [NOW, MISSING_TIME])
    np.testing.assert_allclose(found, [[5, 0], [0, 0]], rtol=1e-5)
    # Two new candidates are hardly more similar for that.
    new = NOW + 10 * DAY
    vectors = age.of_candidates(tf.constant([new, new], tf.int64))
    assert float(tf.reduce_sum(vectors[0] * vectors[1])) < 1e-3
