"""The ranker, and that a candidate's features are the same in training and serving."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from models.features.spec import FeaturesConfig
from models.ranking.config import RankingConfig
from models.ranking.features import RankingFeatures, Retrieved, feature_names, newest_first
from models.ranking.importance import measure
from models.ranking.lists import Lists
from models.ranking.ranker import Ranker, train_ranker
from models.ranking.stage import NO_SCORE, RankingStage
from tests.builders import feature_spec, ranking_tables

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


def test_successors_follow_once_each_if_they_qualify():
    stage = RankingStage(
        TABLES, lambda index: tf.gather(VECTORS, index), exclude_seen=False, successors=4
    )
    first, second, third, fourth = TABLES.successors[9, :4].tolist()
    recent, _ = newest_first(tf.constant([[second, 4, 9], [-1] * 3]))
    found, scores = tf.constant([[third, 0], [1, 2]]), tf.constant([[3.0, NO_SCORE], [2.0, 1.0]])
    queries = tf.constant(VECTORS[:2])
    candidates, values = (of.numpy() for of in stage.candidates(queries, recent, found, scores))
    wanted = [third, 9, 4, second, first, fourth]
    assert candidates[0][values[0] > NO_SCORE].tolist() == wanted
    assert candidates[1][values[1] > NO_SCORE].tolist() == [1, 2]


def make_lists(features: Any, is_candidate: Any, candidates: Any, known: Any) -> Lists:
    """Return lists without labels, of targets that are found."""
    number = len(features)
    labels = np.zeros((number, 0), np.float32)
    is_found, events = np.ones(number, bool), np.arange(number)
    return Lists(features, is_candidate, candidates, is_found, labels, known, events)


def test_a_ranker_learns_what_tells_targets_from_others():
    features = RNG.normal(size=(600, 8, 3)).astype(np.float32)
    # The target, which comes first, is where two features have the same sign: a cross.
    features[:, :, 1] = -np.sign(features[:, :, 0]) * np.abs(features[:, :, 1])
    features[:, 0, 1] *= -1
    is_candidate = np.ones((600, 8), bool)
    is_candidate[::3, 5:] = False
    tf.keras.utils.set_random_seed(1)
    lists = make_lists(features, is_candidate, np.zeros((600, 8), np.int32), {})
    ranker = Ranker(RankingConfig(), ["a", "b", "c"], FeaturesConfig(), {})
    train_ranker(ranker, lists, {}, RankingConfig(epochs=40), RNG)
    best = np.where(is_candidate, ranker.predict(features)[0], -np.inf).argmax(axis=1)
    assert (best == 0).mean() > 0.9


SPEC = feature_spec(
    query={"country": {"kind": "categorical"}, "age": {"kind": "numeric"}},
    candidate={"langs": {"kind": "categorical", "separator": "|"}},
)
SIZES = {"country": 4, "age": 0, "langs": 4}


def declared_lists(number: int) -> tuple[Lists, dict[str, tf.Tensor]]:
    """Return lists in which only the target has the country of the query among its languages."""
    langs = RNG.permuted(np.tile(np.arange(4), (NUM_CANDIDATES, 1)), axis=1)[:, :2].astype(np.int32)
    langs[::5, 1] = -1
    countries = RNG.integers(0, 4, number)
    candidates = np.zeros((number, 5), np.int32)
    for row, country in enumerate(countries):
        has = (langs == country).any(axis=1)
        candidates[row, 0] = RNG.choice(np.flatnonzero(has))
        candidates[row, 1:] = RNG.choice(np.flatnonzero(~has), 4)
    ages = np.where(np.arange(number) % 2, RNG.normal(size=number), np.nan)
    known = {
        "country": countries[:, None].astype(np.int32),
        "age": ages[:, None].astype(np.float32),
    }
    features = RNG.normal(size=(number, 5, 1)).astype(np.float32)
    return make_lists(features, np.ones((number, 5), bool), candidates, known), {"langs": langs}


def test_a_ranker_embeds_declared_features_and_lists_their_importance():
    lists, catalogue = declared_lists(800)
    tf.keras.utils.set_random_seed(1)
    ranker = Ranker(RankingConfig(), ["score"], SPEC.features, SIZES)
    train_ranker(ranker, lists, catalogue, RankingConfig(epochs=40), RNG)
    inputs = ranker.inputs_of(lists, catalogue)
    assert (ranker.predict(inputs)[0].numpy().argmax(axis=1) == 0).mean() > 0.9
    measured = measure(
        lambda of: ranker.predict(of)[0], inputs.numpy(), lists.is_candidate, ranker.columns, RNG
    )
    assert {*list(measured["importance"])[:2]} == {"country", "langs"}
    assert measured["importance"].keys() == {"score", "age", "country", "langs"}


def test_declared_features_are_the_same_in_training_and_serving():
    lists, catalogue = declared_lists(4)
    names = feature_names(repeats=True)
    lists = lists._replace(features=RNG.normal(size=(4, 5, len(names))).astype(np.float32))
    ranker = Ranker(RankingConfig(), names, SPEC.features, SIZES)
    # The catalogue has another order than the vocabulary.
    order = RNG.permutation(NUM_CANDIDATES)
    (vectors,) = ranker.of_candidates({"langs": tf.gather(catalogue["langs"], order)})
    stage = RankingStage(
        TABLES.reordered(order),
        lambda index: tf.gather(VECTORS[order], index),
        exclude_seen=False,
        ranker=ranker,
        candidate_vectors=vectors.numpy(),
    )
    stage.features = lambda *_: lists.features
    assert stage.reads_query
    served = stage.rank(None, np.argsort(order)[lists.candidates], np.zeros((4, 5)), lists.queries)
    trained, _ = ranker.predict(ranker.inputs_of(lists, catalogue))
    np.testing.assert_allclose(served.scores, trained, rtol=1e-5, atol=1e-6)


def test_the_order_of_the_declared_features_does_not_matter():
    lists, catalogue = declared_lists(4)
    other = dict(reversed(SPEC.features.query.items()))
    rankers = [
        Ranker(RankingConfig(), ["score"], SPEC.features.model_copy(update={"query": query}), SIZES)
        for query in (SPEC.features.query, other)
    ]
    rankers[1].set_weights(rankers[0].get_weights())
    scores = [ranker.predict(ranker.inputs_of(lists, catalogue))[0] for ranker in rankers]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-6)
