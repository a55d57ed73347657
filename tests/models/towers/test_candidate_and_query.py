from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.config import ModelConfig
from models.features.vocabularies import FeatureSizes
from models.towers.candidate_and_query import CandidateTower, QueryTower
from tests.builders import feature_spec

DIMENSION = 4
SPEC = feature_spec(
    query={"age": {"kind": "numeric"}}, candidate={"genre": {"kind": "categorical"}}
)
# The last index is the out-of-vocabulary bucket: 5 users, 9 items, 2 genres are known.
SIZES = FeatureSizes(queries=6, candidates=10, features={"genre": 3})
NO_GENRE, NO_AGE = tf.constant([[-1]]), tf.constant([[float("nan")]])


def config(**settings: Any) -> ModelConfig:
    return ModelConfig(dimension=DIMENSION, query_id_embedding=True, **settings)


def randomised(tower: Any) -> Any:
    rng = np.random.default_rng(1)
    for variable in tower.variables:
        variable.assign(rng.normal(size=variable.shape))
    return tower


def candidate_tower(dropout: float = 0.0, **settings: Any) -> CandidateTower:
    tower = CandidateTower(SPEC, SIZES, config(**settings), dropout)
    tower(tf.constant([0]), {"genre": tf.constant([[0]])})
    return randomised(tower)


def query_tower(**settings: Any) -> QueryTower:
    tower = QueryTower(SPEC, SIZES, config(**settings), 0.0)
    tower(tf.constant([0]), {"age": tf.constant([[1.0]])}, tower.encode(tf.constant([[0]])))
    return randomised(tower)


def candidates(tower: CandidateTower, ids: list[int], genres: list[int]) -> np.ndarray:
    return tower(tf.constant(ids), {"genre": tf.constant(genres)[:, None]}).numpy()


def queries(tower: QueryTower, ids: list[int], history: list[list[int]]) -> np.ndarray:
    ages = tf.fill([len(ids), 1], float("nan"))
    return tower(tf.constant(ids), {"age": ages}, tower.encode(tf.constant(history))).numpy()


def test_an_unknown_candidate_has_its_features_only():
    tower = candidate_tower()
    unknown, same_genre, nothing = candidates(tower, [9, 9, 9], [1, 1, -1])
    np.testing.assert_array_equal(unknown, same_genre)
    assert np.any(unknown != 0)
    np.testing.assert_array_equal(nothing, np.zeros(DIMENSION + 1))


def test_id_and_features_add_up():
    tower = candidate_tower()
    both, id_only, genre_only = candidates(tower, [3, 3, 9], [1, -1, 1])
    np.testing.assert_allclose(
        both[:DIMENSION], id_only[:DIMENSION] + genre_only[:DIMENSION], rtol=1e-5
    )


def test_without_id_embedding_candidates_of_one_genre_differ_in_bias_only():
    one, other = candidates(candidate_tower(candidate_id_embedding=False), [3, 4], [1, 1])
    np.testing.assert_array_equal(one[:DIMENSION], other[:DIMENSION])
    assert one[-1] != other[-1]


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({}, DIMENSION + 1),
        ({"candidate_bias": False}, DIMENSION),
        ({"similarity": "cosine"}, DIMENSION),
        ({"similarity": "cosine", "candidate_bias": True}, DIMENSION + 1),
        ({"query_hidden_layers": (7, 5), "candidate_hidden_layers": (6,)}, DIMENSION + 1),
    ],
)
def test_both_towers_have_one_width(settings: dict[str, Any], width: int):
    assert candidates(candidate_tower(**settings), [0, 9], [0, 1]).shape == (2, width)
    assert queries(query_tower(**settings), [0, 5], [[0], [9]]).shape == (2, width)


def test_cosine_gives_candidates_unit_length_and_queries_the_temperature():
    # Nothing is known of the last candidate, so it has no direction; an empty query has one.
    vectors = candidates(candidate_tower(similarity="cosine"), [0, 1, 2, 9], [0, 1, -1, -1])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1.0, 1.0, 1.0, 0.0], rtol=1e-5)
    tower = query_tower(similarity="cosine", temperature=0.25)
    vectors = queries(tower, [0, 1, 5], [[1], [2], [-1]])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1 / 0.25, rtol=1e-5)


def test_a_bias_adds_to_the_cosine_and_hardly_to_the_similarity_of_candidates():
    options = {"similarity": "cosine", "candidate_bias": True, "temperature": 0.25}
    biases = np.linspace(0, 2, 9, dtype=np.float32)
    tower = CandidateTower(SPEC, SIZES, config(**options), 0.0, biases=biases)
    vectors = candidates(tower, [0, 8, 9], [0, 1, 1])
    query = queries(query_tower(**options), [0], [[1]])[0]
    cosines = 0.25 * vectors[:, :-1] @ query[:-1]
    assert (np.abs(cosines) <= 1 + 1e-5).all()
    np.testing.assert_allclose(vectors @ query, cosines / 0.25 + [0, 2, 0], rtol=1e-4, atol=1e-5)


def test_an_unknown_query_is_as_one_without_an_id():
    tower = query_tower()
    unknown, known = queries(tower, [5, 2], [[1, 2], [1, 2]])
    history = tower.encode(tf.constant([[1, 2]])).numpy()[0]
    np.testing.assert_allclose(unknown[:DIMENSION], history, rtol=1e-5)
    assert np.any(known != unknown)


def test_with_shared_embeddings_an_event_is_embedded_as_its_candidate():
    candidate, genres = candidate_tower(), [[0], [1], [-1], [0], [1], [0], [1], [0], [1]]
    tower = QueryTower(SPEC, SIZES, config(), 0.0, candidate, {"genre": tf.constant(genres)})
    expected = candidates(candidate, list(range(9)), [genre for (genre,) in genres])
    table = tower.event_table()
    np.testing.assert_allclose(table, expected[:, :DIMENSION], rtol=1e-6)
    history = tf.constant([[4, 8, 4, 9, -1], [2, -1, -1, -1, -1]])
    np.testing.assert_allclose(
        tower.encode(history, 2, table=table), tower.encode(history, 2), rtol=1e-6
    )


def test_in_training_an_event_now_and_then_has_its_features_only():
    genres = {"genre": tf.ones([9, 1], tf.int32)}
    tower = QueryTower(SPEC, SIZES, config(), 0.5, candidate_tower(0.5), genres)
    events = tf.ragged.constant([list(range(9))], tf.int32)
    drawn = [tower.vectors(events, seed=tf.constant([1, n])).values.numpy() for n in range(60)]
    # Events 3 and 4 have one genre, so they are equal if only that is left, or nothing.
    same = {tuple(each[3].round(4)) for each in drawn if np.array_equal(each[3], each[4])}
    assert len(same) == 2


def test_a_hidden_id_leaves_the_features():
    # Everything is hidden now and then; with the same seed the same rows.
    tower = candidate_tower(dropout=0.5)
    ids, genre = tf.fill([200], 3), {"genre": tf.fill([200, 1], 1)}
    one, again = (tower(ids, genre, seed=tf.constant([1, 2])).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, again)
    vectors = np.unique(one[:, :DIMENSION].round(4), axis=0)
    # Both, id only, genre only, nothing.
    assert len(vectors) == 4
