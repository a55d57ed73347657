"""The definition of each feature, computed one candidate at a time in plain Python."""

from __future__ import annotations

from math import exp, log, log1p, sqrt
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.ranking.features import NUM_RECENT, RankingFeatures, Retrieved, newest_first
from models.ranking.stage import NO_SCORE
from tests.builders import ranking_tables

NUM_CANDIDATES = 12
RNG = np.random.default_rng(1)
TIMELINES = [RNG.integers(0, NUM_CANDIDATES, RNG.integers(1, 9)).tolist() for _ in range(40)]
VECTORS = RNG.normal(size=(NUM_CANDIDATES, 3)).astype(np.float32)
TABLES = ranking_tables(TIMELINES, NUM_CANDIDATES)
# Oldest first; -1 is an unknown candidate or padding.
HISTORIES = [
    [3, -1, 5, 3, 7, -1],
    [-1, -1, -1, -1, -1, -1],
    [2, -1, -1, -1, -1, -1],
]
CANDIDATES = [[3, 7, 0, 5], [1, 2, 3, 4], [2, 9, 10, 11]]
SCORES = [[0.5, 2.0, 1.0, 3.0]] * 3
TOP_SCORES = [[3.0, 2.0, 1.0]] * 3


def computed(repeats: bool = True) -> dict[str, np.ndarray[Any, Any]]:
    features = RankingFeatures(TABLES, lambda index: tf.gather(VECTORS, index), repeats=repeats)
    retrieved = Retrieved(*newest_first(tf.constant(HISTORIES)), tf.constant(TOP_SCORES))
    values = features(retrieved, tf.constant(CANDIDATES), tf.constant(SCORES)).numpy()
    assert values.shape == (3, 4, len(features.names))
    return {name: values[:, :, number] for number, name in enumerate(features.names)}


def neighbour(neighbours: Any, values: Any, event: int, candidate: int) -> float:
    found = dict(zip(neighbours[event].tolist(), values[event].tolist(), strict=True))
    return found.get(candidate, 0.0)


def cosine(a: int, b: int) -> float:
    return float(
        VECTORS[a] @ VECTORS[b] / sqrt(VECTORS[a] @ VECTORS[a] * (VECTORS[b] @ VECTORS[b]))
    )


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def expected(
    history: list[int], candidate: int, score: float, top: list[float]
) -> dict[str, float]:
    newest = [event for event in history[::-1] if event >= 0]
    rules = [neighbour(TABLES.successors, TABLES.successor_values, e, candidate) for e in newest]
    cosines = [neighbour(TABLES.similar, TABLES.similar_values, e, candidate) for e in newest]
    similar = [cosine(candidate, event) for event in newest]
    positions = [1 / (nth + 1) for nth, event in enumerate(newest) if event == candidate]
    ruled = [*rules, 0.0, 0.0, 0.0]
    return {
        "score": score,
        "rank": log(1 + sum(other > score for other in top)),
        "margin": score - top[0],
        "popularity": TABLES.popularity[candidate],
        "recent": TABLES.recent[candidate],
        "trend": TABLES.recent[candidate] - TABLES.popularity[candidate],
        "age": TABLES.age[candidate],
        "idle": TABLES.idle[candidate],
        "rules_1": ruled[0],
        "rules_2": ruled[1],
        "rules_3": ruled[2],
        "rules": sum(rule * exp(-nth / 4) for nth, rule in enumerate(rules)),
        "cooccurrence_max": max(cosines, default=0.0),
        "cooccurrence": mean(cosines),
        "similarity_last": similar[0] if similar else 0.0,
        "similarity_max": max(similar, default=-1.0),
        "similarity": mean(similar),
        "length": log1p(len(newest)),
        "distinct": len(set(newest)) / len(newest) if newest else 0.0,
        **{f"position_{n}": float(bool(positions) and positions[0] == 1 / n) for n in range(1, 6)},
        "position": positions[0] if positions else 0.0,
        "second_place": positions[1] if len(positions) > 1 else 0.0,
        "times": log1p(len(positions)),
        "share": len(positions) / len(newest) if newest else 0.0,
    }


@pytest.mark.parametrize("row", range(len(HISTORIES)))
def test_each_feature_has_its_definition(row: int):
    found = computed()
    for column, (candidate, score) in enumerate(zip(CANDIDATES[row], SCORES[row], strict=True)):
        wanted = expected(HISTORIES[row], candidate, score, TOP_SCORES[row])
        assert wanted.keys() == found.keys()
        actual = {name: values[row, column] for name, values in found.items()}
        assert actual == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_positions_are_left_out_if_seen_candidates_are_excluded():
    assert set(computed()) - set(computed(repeats=False)) >= {"position", "times", "position_1"}


def test_features_do_not_depend_on_the_other_candidates_and_queries():
    features = RankingFeatures(TABLES, lambda index: tf.gather(VECTORS, index), repeats=True)
    alone = features(
        Retrieved(*newest_first(tf.constant(HISTORIES[:1])), tf.constant(TOP_SCORES[:1])),
        tf.constant([[5]]),
        tf.constant([[3.0]]),
    )
    together = np.stack([*computed().values()], axis=2)
    np.testing.assert_allclose(alone[0, 0], together[0, 3], rtol=1e-5)
    # Repeated, and with a score that was rounded in another way.
    repeated = features(
        Retrieved(*newest_first(tf.constant(HISTORIES[:1])), tf.constant(TOP_SCORES[:1])),
        tf.constant([[5, 5]]),
        tf.constant([[3.0, 2.9999995]]),
    )
    np.testing.assert_allclose(repeated[0], [alone[0, 0]] * 2, rtol=1e-5, atol=1e-6)


def test_missing_candidates_of_the_retriever_rank_behind_all():
    features = RankingFeatures(TABLES, lambda index: tf.gather(VECTORS, index), repeats=True)
    retrieved = Retrieved(*newest_first(tf.constant([[1]])), tf.constant([[2.0, NO_SCORE]]))
    values = features(retrieved, tf.constant([[4]]), tf.constant([[1.0]])).numpy()
    assert values[0, 0, features.names.index("rank")] == pytest.approx(log(2))


def test_only_the_newest_known_events_are_read():
    long = [-1, *range(NUM_RECENT + 5), -1]
    recent, length = newest_first(tf.constant([long, [-1] * len(long)]))
    assert recent[0].numpy().tolist() == list(range(NUM_RECENT + 4, 4, -1))
    assert length.numpy().tolist() == [NUM_RECENT + 5, 0]
    assert set(recent[1].numpy().tolist()) == {-1}
