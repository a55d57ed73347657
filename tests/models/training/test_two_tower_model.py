"""The loss: which events are predicted, from which history, and with which weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.features.vocabularies import FeatureSizes
from models.input.availability import Availability
from models.training import two_tower_model
from models.training.two_tower_model import TwoTowerModel, _shuffled
from tests.builders import feature_spec
from tests.models.conftest import NUM_ITEMS
from tests.models.fitting import Fitting, model_of_ids


@pytest.mark.parametrize("objective", ["reconstruct", "next_candidate"])
@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_a_batch_without_events_has_no_loss(
    fitting: Callable[..., Fitting], objective: str, loss: str
):
    run = fitting(objective=objective, loss=loss)
    for width in (0, 3):
        batch = {"user": tf.constant([[0], [1]]), "item": tf.fill([2, width], -1)}
        assert float(run.model.compute_loss(batch)) == 0.0
        training = run.model.compute_loss(batch, training=True, seed=tf.constant([1, 2]))
        assert float(training) == 0.0


def loss_by_hand(
    run: Fitting,
    queries: list[tuple[list[int], list[int]]],
    available: list[list[int]] | None = None,
) -> float:
    """Return the mean of -log softmax over the targets, given their histories.

    `available` has the candidates that each query's targets are chosen from; by default, all are.
    """
    tower, losses = run.model.query_tower, []
    for number, (history, targets) in enumerate(queries):
        events = tf.constant([history], tf.int32, [1, len(history)])
        query = tower(tf.constant([0]), {}, tower.encode(events))
        scores = tf.matmul(query, run.model.candidates(tf.range(NUM_ITEMS)), transpose_b=True)
        if available is not None:
            is_available = np.isin(np.arange(NUM_ITEMS), available[number])
            scores = tf.where(is_available, scores, -1e9)
        losses += [-float(tf.nn.log_softmax(scores)[0, target]) for target in targets]
    return float(np.mean(losses))


BATCH = {"user": tf.constant([[0], [1]]), "item": tf.constant([[2, 5, 7], [4, -1, -1]])}


@pytest.mark.parametrize(
    ("objective", "max_history", "queries"),
    [
        ("reconstruct", 10, [([2, 5, 7], [2, 5, 7]), ([4], [4])]),
        # Events beyond `max_history` are still targets.
        ("reconstruct", 2, [([5, 7], [2, 5, 7]), ([4], [4])]),
        ("next_candidate", 10, [([], [2]), ([2], [5]), ([2, 5], [7]), ([], [4])]),
        ("next_candidate", 1, [([], [2]), ([2], [5]), ([5], [7]), ([], [4])]),
    ],
)
def test_each_event_is_predicted_from_the_history_that_serving_would_see(
    fitting: Callable[..., Fitting],
    objective: str,
    max_history: int,
    queries: list[tuple[list[int], list[int]]],
):
    run = fitting(
        objective=objective, loss="full_softmax", model={"max_history": max_history, "dimension": 8}
    )
    run.model.compute_loss(BATCH)
    # Vectors far apart, so that another history would be another loss.
    rng = np.random.default_rng(0)
    for variable in run.model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    loss = float(run.model.compute_loss(BATCH))
    assert loss == pytest.approx(loss_by_hand(run, queries), rel=1e-5)


@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
@pytest.mark.parametrize(
    ("objective", "available"),
    [
        # During the timelines, from 10 to 30 and at 10.
        ("reconstruct", [[0, 1, 2, 5, 7], [0, 1, 4, 5]]),
        ("next_candidate", [[0, 1, 2, 5], [1, 5, 7], [1, 7], [0, 1, 4, 5]]),
    ],
)
def test_only_candidates_that_were_available_are_negatives(
    fitting: Callable[..., Fitting],
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    available: list[list[int]],
    loss: str,
):
    everything = tf.range(NUM_ITEMS), tf.zeros([NUM_ITEMS])
    monkeypatch.setattr(two_tower_model, "draw_negatives", lambda *_: everything)
    run = fitting(objective=objective, loss=loss)
    # 0 until 20, 1 always, 5 until 30, 7 from 20. 2 and 4 are never available, but are targets.
    start, end = np.full(NUM_ITEMS, 99), np.full(NUM_ITEMS, 100)
    start[[0, 1, 5, 7]], end[[0, 1, 5, 7]] = [0, 0, 0, 20], [20, 100, 30, 100]
    run.model.availability = Availability(start, end)
    batch = {**BATCH, "timestamp": tf.constant([[10, 20, 30], [10, 0, 0]], tf.int64)}
    run.model.compute_loss(batch)
    rng = np.random.default_rng(0)
    for variable in run.model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    queries = {
        "reconstruct": [([2, 5, 7], [2, 5, 7]), ([4], [4])],
        "next_candidate": [([], [2]), ([2], [5]), ([2, 5], [7]), ([], [4])],
    }[objective]
    loss_of_batch = float(run.model.compute_loss(batch))
    assert loss_of_batch == pytest.approx(loss_by_hand(run, queries, available), rel=1e-5)


def test_reconstruct_with_every_candidate_as_a_negative_is_the_full_softmax(
    fitting: Callable[..., Fitting], monkeypatch: pytest.MonkeyPatch
):
    everything = tf.range(NUM_ITEMS), tf.zeros([NUM_ITEMS])
    monkeypatch.setattr(two_tower_model, "draw_negatives", lambda *_: everything)
    losses = []
    for loss in ("full_softmax", "sampled_softmax"):
        run = fitting(objective="reconstruct", loss=loss)
        run.model.compute_loss(BATCH)
        rng = np.random.default_rng(0)
        for variable in run.model.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
        losses.append(float(run.model.compute_loss(BATCH)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("objective", ["reconstruct", "next_candidate"])
@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_events_count_by_their_weight(fitting: Callable[..., Fitting], objective: str, loss: str):
    run = fitting(objective=objective, loss=loss)

    def of(*weights: float) -> float:
        row = {"user": tf.constant([[0]]), "item": tf.constant([[2, 5, 7, -1]])}
        return float(
            run.model.compute_loss({**row, "event_weight": tf.constant([weights], tf.float32)})
        )

    each = [of(*np.eye(4)[position]) for position in range(3)]
    assert len(set(each)) == 3
    assert of(1.0, 1.0, 1.0, 0.0) == pytest.approx(np.mean(each), rel=1e-5)
    assert of(2.0, 0.0, 6.0, 9.0) == pytest.approx((each[0] + 3 * each[2]) / 4, rel=1e-5)
    assert of(0.0, 0.0, 0.0, 0.0) == 0.0


@pytest.mark.parametrize("has_features", [True, False])
def test_candidates_without_events_are_negatives_only_if_nothing_describes_them(has_features: bool):
    genre = {"genre": {"kind": "categorical"}} if has_features else {}
    model = TwoTowerModel(
        feature_spec(candidate=genre),
        FeatureSizes(1, 4, dict.fromkeys(genre, 2)),
        ModelConfig(dimension=4),
        TrainingConfig(objective="next_candidate", loss="full_softmax"),
        dict.fromkeys(genre, np.zeros([3, 1], np.int32)),
        np.array([1, 1, 0]),
        1,
    )
    loss = model.compute_loss({"user": tf.constant([[0]]), "item": tf.constant([[0, 1]])})
    tower = model.query_tower
    queries = tower(tf.constant([0, 0]), {}, tower.encode(tf.constant([[-1], [0]])))
    logits = tf.matmul(queries, model.candidates(tf.range(3)), transpose_b=True)
    chances = tf.nn.softmax(logits[:, :2] if has_features else logits).numpy()
    assert float(loss) == pytest.approx(-np.log(chances[[0, 1], [0, 1]]).mean(), rel=1e-5)


def loss_of(num_candidates: int, num_timelines: int | None, **training: Any) -> bool:
    counts = np.full(num_candidates, 100)
    settings = TrainingConfig(batch_size=10, **training)
    model = model_of_ids(ModelConfig(dimension=2), settings, counts, num_timelines=num_timelines)
    return model.uses_full_softmax


def test_the_loss_is_full_while_candidates_and_logits_are_few():
    # 1,000 candidates with 100 events each; 10 timelines a step.
    few: dict[str, Any] = {"max_full_softmax": 1000, "max_full_logits": 10_000}
    assert loss_of(1000, 100, **few)
    assert not loss_of(1001, 100, **few)
    assert not loss_of(1000, 100, **{**few, "max_full_logits": 9_999})
    # 10 timelines of 1,000 events each: 10,000 events by 1,000 candidates.
    each: dict[str, Any] = {**few, "objective": "next_candidate"}
    assert loss_of(1000, 100, **{**each, "max_full_logits": 10_000_000})
    assert not loss_of(1000, 100, **{**each, "max_full_logits": 9_999_999})
    assert loss_of(1000, 100, **{**each, "loss": "full_softmax"})
    assert not loss_of(10, 100, loss="sampled_softmax")


def test_a_shuffled_history_keeps_its_events_and_its_padding(fitting: Callable[..., Fitting]):
    run = fitting(objective="next_candidate", shuffle_history=True)
    history = tf.constant([[1, 2, 3, 4, 5, -1, -1], [6, -1, -1, -1, -1, -1, -1]])
    weight = tf.cast(history, tf.float32) / 10
    orders = set()
    for seed in range(20):
        shuffled, weights = _shuffled(tf.constant([seed, 0]), history, weight)
        np.testing.assert_array_equal(weights, tf.cast(shuffled, tf.float32) / 10)
        shuffled = shuffled.numpy()
        assert sorted(shuffled[0, :5]) == [1, 2, 3, 4, 5]
        np.testing.assert_array_equal(shuffled[:, 5:], -1)
        assert shuffled[1, 0] == 6
        orders.add(tuple(shuffled[0]))
    assert len(orders) > 10
    batch = {"user": tf.zeros([2, 1], tf.int32), "item": history}
    assert np.isfinite(run.model.compute_loss(batch, training=True, seed=tf.constant([1, 2])))


# Three of four begin with candidate 3; what comes next is anything.
FIRST_IS_3 = [[3, 0], [3, 1], [3, 2], [3, 4], [3, 0], [3, 1], [2, 0], [1, 4]]


def fitted(similarity: str) -> TwoTowerModel:
    tf_keras.utils.set_random_seed(5)
    model = model_of_ids(
        ModelConfig(
            dimension=8, history_encoder="recency", share_candidate_ids=True, similarity=similarity
        ),
        TrainingConfig(objective="next_candidate", history_dropout=0.0),
        np.bincount(np.concatenate(FIRST_IS_3), minlength=5),
        num_timelines=len(FIRST_IS_3),
    )
    model.compile(optimizer=tf_keras.optimizers.Adam(0.05))
    batch = {"user": tf.zeros([len(FIRST_IS_3), 1], tf.int32), "item": tf.constant(FIRST_IS_3)}
    for _ in range(60):
        model.train_step(batch)
    return model


def test_a_history_of_candidates_without_events_says_what_their_features_say():
    # Timelines stay within one of two genres; the candidates 8 and 9 have a genre and no events.
    tf_keras.utils.set_random_seed(5)
    genres = np.arange(10)[:, None] % 2
    timelines = [[first, (first + 2) % 8, (first + 4) % 8] for first in range(8)]
    model = TwoTowerModel(
        feature_spec(candidate={"genre": {"kind": "categorical"}}),
        FeatureSizes(queries=1, candidates=11, features={"genre": 3}),
        ModelConfig(dimension=8, history_encoder="recency", share_candidate_ids=True),
        TrainingConfig(objective="next_candidate", history_dropout=0.0, feature_dropout=0.3),
        {"genre": genres.astype(np.int32)},
        np.bincount(np.concatenate(timelines), minlength=10),
        num_timelines=8,
    )
    model.compile(optimizer=tf_keras.optimizers.Adam(0.1))
    batch = {"user": tf.zeros([8, 1], tf.int32), "item": tf.constant(timelines)}
    for _ in range(30):
        model.train_step(batch)
    encoded = model.query_tower.encode(tf.constant([[8], [9]]))
    queries = model.query_tower(tf.zeros([2], tf.int32), {}, encoded)
    scores = tf.matmul(queries, model.candidates(tf.range(8)), transpose_b=True)
    best = tf.math.top_k(scores, 4).indices.numpy() % 2
    np.testing.assert_array_equal(best, [[0] * 4, [1] * 4])


def test_the_type_of_an_event_changes_what_comes_next():
    # Whoever views one of the candidates 0 to 3 takes the one 4 above it, and whoever buys one, 8.
    tf_keras.utils.set_random_seed(5)
    timelines = [[item, item + 4 + 4 * kind] for item in range(4) for kind in (0, 1)]
    types = tf.constant([[kind, -1] for _ in range(4) for kind in (0, 1)])
    spec = feature_spec(event_type="did", event_types=("view", "buy"))
    model = TwoTowerModel(
        spec,
        FeatureSizes(queries=1, candidates=13, features={}),
        ModelConfig(dimension=16, history_encoder="recency", candidate_bias=False),
        TrainingConfig(objective="next_candidate", history_dropout=0.0),
        {},
        np.bincount(np.concatenate(timelines), minlength=12),
        num_timelines=8,
    )
    model.compile(optimizer=tf_keras.optimizers.Adam(0.1))
    batch = {
        "user": tf.zeros([8, 1], tf.int32),
        "item": tf.constant(timelines),
        "history_types": types,
    }
    for _ in range(30):
        model.train_step(batch)
    encoded = model.query_tower.encode(batch["item"][:, :1], types=types[:, :1])
    queries = model.query_tower(tf.zeros([8], tf.int32), {}, encoded)
    scores = tf.matmul(queries, model.candidates(tf.range(4, 12)), transpose_b=True)
    assert (tf.argmax(scores, axis=1) + 4).numpy().tolist() == [last for _, last in timelines]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_query_without_history_is_answered_with_what_most_begin_with(similarity: str):
    model = fitted(similarity)
    tower = model.query_tower
    query = tower(tf.constant([tower.oov]), {}, tower.encode(tf.constant([[-1]])))
    scores = tf.matmul(query, model.candidates(tf.range(5)), transpose_b=True)
    assert int(tf.argmax(scores[0])) == 3


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_blocks_of_candidates_have_the_vectors_of_all(size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(two_tower_model, "_CANDIDATES_PER_BLOCK", size)
    model = fitted("dot")
    expected = model.candidates(tf.range(model.num_candidates))
    np.testing.assert_array_equal(model.all_candidates(), expected)
