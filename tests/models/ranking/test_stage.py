"""The ranker, and that a candidate's features are the same in training and serving."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from models.ranking.config import RankingConfig
from models.ranking.features import RankingFeatures, Retrieved, newest_first
from models.ranking.ranker import train_ranker
from models.ranking.stage import NO_SCORE, RankingStage
from tests.builders import ranking_tables

NUM_CANDIDATES = 30
RNG = np.random.default_rng(2)
TIMELINES = [RNG.integers(0, NUM_CANDIDATES, 8).tolist() for _ in range(50)]
VECTORS = RNG.normal(size=(NUM_CANDIDATES, 4)).astype(np.float32)
TABLES = ranking_tables(TIMELINES, NUM_CANDIDATES)


def test_features_are_the_same_with_another_order_of_the_catalogue():
    order = RNG.permutation(NUM_CANDIDATES)
    new_of_old = np.argsort(order)
    history = RNG.integers(0, NUM_CANDIDATES, (4, 20))
    candidates = np.stack([RNG.permutation(NUM_CANDIDATES)[:9] for _ in range(4)])
    scores = RNG.normal(size=(4, 9)).astype(np.float32)
    top_scores = -np.sort(-RNG.normal(size=(4, 7)).astype(np.float32))

    def features(tables, vectors, history, candidates):
        compute = RankingFeatures(tables, lambda index: tf.gather(vectors, index), repeats=True)
        retrieved = Retrieved(*newest_first(tf.constant(history, tf.int32)), top_scores)
        return compute(retrieved, tf.constant(candidates, tf.int32), scores).numpy()

    trained = features(TABLES, VECTORS, history, candidates)
    served = features(
        TABLES.reordered(order), VECTORS[order], new_of_old[history], new_of_old[candidates]
    )
    np.testing.assert_allclose(served, trained, rtol=1e-5, atol=1e-6)


def test_history_candidates_follow_those_of_the_retriever_once_each():
    stage = RankingStage(TABLES, lambda index: tf.gather(VECTORS, index), exclude_seen=False)
    recent, _ = newest_first(tf.constant([[4, 9, 4, -1, 0, 7, 9], [-1] * 7]))
    # The retriever has found 7, and nothing else.
    queries = tf.constant(VECTORS[:2])
    found, scores = tf.constant([[7, 0], [1, 2]]), tf.constant([[3.0, NO_SCORE], [2.0, 1.0]])
    candidates, values = (of.numpy() for of in stage.candidates(queries, recent, found, scores))
    assert candidates[0][values[0] > NO_SCORE].tolist() == [7, 9, 0, 4]
    assert candidates[1][values[1] > NO_SCORE].tolist() == [1, 2]
    np.testing.assert_allclose(values[0, 2], VECTORS[9] @ VECTORS[0], rtol=1e-5)


def test_a_ranker_learns_what_tells_targets_from_others():
    features = RNG.normal(size=(600, 8, 3)).astype(np.float32)
    # The target, which comes first, is where two features have the same sign: a cross.
    features[:, :, 1] = -np.sign(features[:, :, 0]) * np.abs(features[:, :, 1])
    features[:, 0, 1] *= -1
    is_candidate = np.ones((600, 8), bool)
    is_candidate[::3, 5:] = False
    tf.keras.utils.set_random_seed(1)
    ranker = train_ranker(features, is_candidate, RankingConfig(epochs=40), RNG)
    best = np.where(is_candidate, ranker(features).numpy(), -np.inf).argmax(axis=1)
    assert (best == 0).mean() > 0.9
