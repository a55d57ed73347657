"""Ranks of held-out events, with scores that can be computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.config import HoldoutMetric, ModelConfig
from models.errors import DivergedError
from models.input.availability import Availability
from models.training.holdout_ranks import holdout_ranks
from tests.builders import feature_spec

SPEC = feature_spec()
UNRANKED = np.iinfo(np.int64).max


class LastEvent:
    """Scores candidate c after a history that ends with e as -(c - e - 1)²: the next is best."""

    config, spec = ModelConfig(max_history=3), SPEC
    num_candidates = 6
    availability: Availability | None = None

    def all_candidates(self) -> Any:
        c = np.arange(self.num_candidates, dtype=np.float32)
        # -(c - q)^2 = -c^2 + 2cq - q^2
        return np.stack([-c * c, 2 * c, -np.ones_like(c)], axis=1)

    @property
    def query_tower(self) -> Any:
        def tower(ids: tf.Tensor, features: Any, encoded: tf.Tensor, times: None) -> tf.Tensor:
            return tf.stack([tf.ones_like(encoded), encoded, encoded * encoded], axis=1)

        def encode(events: tf.Tensor, newest: int, types: tf.Tensor) -> tf.Tensor:
            assert newest == self.config.max_history
            length = tf.reduce_sum(tf.cast(events >= 0, tf.int32), axis=1)
            return tf.cast(tf.gather(events, length - 1, batch_dims=1), tf.float32) + 1.0

        tower.encode, tower.age = encode, None  # type: ignore[attr-defined]
        return tower


def batch(*rows: list[int]) -> dict[str, tf.Tensor]:
    return {
        "user": tf.zeros([len(rows), 1], tf.int32),
        "item": tf.ragged.constant([list(row) for row in rows], tf.int32).to_tensor(-1),
    }


def ranks(*rows: list[int], exclude_seen: bool = False, model: Any = None) -> list[int]:
    return holdout_ranks(
        model or LastEvent(), [batch(*rows)], "next_candidate", exclude_seen=exclude_seen, seed=1
    ).tolist()


def test_each_event_is_predicted_from_those_before_it():
    # After 0: 1 is expected and comes. After 1: 2 is expected; 4 scores -4, behind 2, 1, 3 and 0
    # (also -4, and ties count as ranked before it).
    assert ranks([0, 1], [0, 1, 4]) == [1, 5]
    # The only event has none before it, so it makes no query.
    assert ranks([3]) == []


def test_only_the_newest_events_are_predicted():
    # A quarter of eight: 4 after 5, where 6 is expected: 5 alone is nearer; then 5 after 4.
    assert ranks([0, 1, 2, 3, 4, 5, 4, 5]) == [2, 1]
    assert len(ranks([0, 1] * 20)) == 5


def test_seen_candidates_are_left_out_and_never_found():
    # After 1, without 0 and 1: 4 ranks behind 2 and 3.
    assert ranks([0, 1, 4], exclude_seen=True) == [3]
    assert ranks([0, 1, 0], exclude_seen=True) == [UNRANKED]


def test_candidates_are_ranked_while_they_are_available():
    # After 1, 4 ranks behind 2, 1, 3 and 0; 2 and 3 are not available at 20, and 0 is until then.
    model = LastEvent()
    model.availability = Availability(
        np.array([0, 0, 21, 0, 0, 0]), np.array([20, 99, 99, 20, 99, 99])
    )
    events = {**batch([0, 1, 4]), "timestamp": tf.constant([[10, 15, 20]], tf.int64)}
    found = holdout_ranks(model, [events], "next_candidate", exclude_seen=False, seed=1)
    assert found.tolist() == [2]


def test_out_of_vocabulary_targets_are_never_found():
    assert ranks([0, 6]) == [UNRANKED]


def test_a_random_part_of_an_unordered_timeline_is_predicted_from_the_rest():
    timeline = [0, 1, 2, 3, 4, 5]
    one, again = (
        holdout_ranks(LastEvent(), [batch(timeline)], "reconstruct", exclude_seen=True, seed=3)
        for _ in range(2)
    )
    # A fifth of six is one; five are seen, so it is found first.
    assert one.tolist() == again.tolist() == [1]


def test_a_diverged_model_is_an_error():
    class Diverged(LastEvent):
        def all_candidates(self) -> Any:
            return super().all_candidates() * np.nan

    with pytest.raises(DivergedError):
        ranks([0, 1], model=Diverged())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hit_rate@2", 2 / 3),
        ("mrr@2", (1 + 1 / 2) / 3),
        ("ndcg@2", (1 + 1 / np.log2(3)) / 3),
        ("hit_rate@1", 1 / 3),
    ],
)
def test_metrics_are_those_of_the_evaluation(name: str, value: float):
    assert HoldoutMetric.parse(name).mean(np.array([1, 2, UNRANKED])) == pytest.approx(value)
    assert HoldoutMetric.parse(name).mean(np.zeros(0, np.int64)) == 0.0
