"""Tasks beside the next event: labels, features, losses, and what is served."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.features.spec import FeaturesConfig
from models.ranking.config import RankingConfig, TaskConfig
from models.ranking.estimates import Estimates
from models.ranking.lists import Lists
from models.ranking.ranker import Ranker, shrink_corrections, train_ranker
from models.ranking.tasks import Task, TaskFeatures, labels_of

RATING = TaskConfig()
TIME = TaskConfig(loss="squared_log_error")
BUY = TaskConfig(loss="binary", event_type="buy")


def test_labels_are_ratings_logarithms_or_event_types():
    ratings = np.array([0.0, 9.0, np.nan, -3.0], np.float32)
    np.testing.assert_array_equal(labels_of(RATING, ratings), ratings)
    np.testing.assert_allclose(labels_of(TIME, ratings), [0.0, np.log(10.0), np.nan, 0.0])
    assert labels_of(BUY, np.array([b"buy", b"view", b""], object)).tolist() == [1.0, 0.0, 0.0]


def test_what_is_served_has_the_unit_of_the_label():
    labels = np.array([1.0, 5.0, np.nan], np.float32)
    rating = Task.of("rating", RATING, labels)
    assert (rating.mean, rating.scale, rating.low, rating.high) == (3.0, 2.0, 1.0, 5.0)
    assert rating.served(tf.constant([0.0, 4.0, 9.0])).numpy().tolist() == [1.0, 4.0, 5.0]
    assert rating.standard(tf.constant([5.0])).numpy().tolist() == [1.0]
    seconds = Task.of("seconds", TIME, np.log1p(np.array([0.0, 99.0], np.float32)))
    served = seconds.served(tf.math.log1p([9.0, 1e9]))
    np.testing.assert_allclose(served, [9.0, 99.0], rtol=1e-5)
    buy = Task.of("buy", BUY, labels)
    np.testing.assert_allclose(buy.served(tf.constant([0.0])), [0.5])
    assert buy.standard(tf.constant([0.3])).numpy() == pytest.approx([0.3])


def test_features_are_the_estimates_of_known_and_unknown_queries():
    estimates = Estimates(
        mean=0.5,
        queries=np.array([[0.1, 2.0], [0.0, 0.0]], np.float32),
        candidates=np.array([[0.2, 0.05], [-0.3, 0.0], [0.0, 0.0]], np.float32),
    )
    tasks = [Task.of(name, task, np.ones(1)) for name, task in (("rating", RATING), ("buy", BUY))]
    features = TaskFeatures(tasks, {"rating": estimates, "buy": estimates}, "user")
    assert features.names[:4] == ("rating", "rating_query", "rating_candidate", "buy")
    known = {"user": tf.constant([[0], [1], [-1], [7]])}
    rating, buy = features(known, tf.constant([[0, 1]] * 4))
    expected = [[[0.9, 0.6, 0.7], [0.3, 0.6, 0.2]]] + [[[0.7, 0.5, 0.7], [0.2, 0.5, 0.2]]] * 3
    np.testing.assert_allclose(rating, expected, rtol=1e-5)
    np.testing.assert_allclose(tf.sigmoid(buy), expected, rtol=1e-4)


def test_a_ranker_corrects_the_estimates_and_leaves_out_unknown_labels():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(800, 6, 3)).astype(np.float32)
    estimate, other = features[:, 0, 1], features[:, 0, 2]
    labels = (estimate + np.where(other > 0, 1.0, -1.0)).astype(np.float32)
    buys = (other > 0.5).astype(np.float32)
    labels[::4] = np.nan
    columns = np.stack([labels, buys], axis=1)
    lists = Lists(
        np.concatenate([features, features[..., 1:2] * 0.0], axis=2),
        np.ones((800, 6), bool),
        np.zeros((800, 6), np.int32),
        np.arange(800) % 2 == 0,
        columns,
        {},
        np.arange(800),
    )
    tasks = [Task.of("rating", RATING, labels), Task.of("buy", BUY, buys)]
    tf.keras.utils.set_random_seed(1)
    ranker = Ranker(RankingConfig(), ["score", "rating", "z", "buy"], FeaturesConfig(), {}, tasks)
    before = ranker.predict(lists.features)[1][0][:, 0]
    np.testing.assert_allclose(before, estimate, rtol=1e-5)
    train_ranker(ranker, lists, {}, RankingConfig(epochs=30), rng)
    _, (rating, buy) = ranker.predict(lists.features)
    known = np.isfinite(labels)
    assert np.sqrt(np.mean((rating[:, 0].numpy() - labels)[known] ** 2)) < 0.5
    assert np.mean((buy[:, 0].numpy() > 0) == (buys > 0.5)) > 0.95
    assert shrink_corrections(ranker, lists, {}) == {"rating": 1.0, "buy": 1.0}
    # Where the estimates are right, corrections only do harm.
    right = lists._replace(labels=np.stack([estimate, buys], axis=1))
    assert shrink_corrections(ranker, right, {}) == {"rating": 0.0, "buy": 1.0}
    np.testing.assert_allclose(ranker.predict(lists.features)[1][0][:, 0], estimate, rtol=1e-5)
