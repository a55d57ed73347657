from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.features.spec import ColumnsConfig, FeatureSpec
from models.input.event_weights import EVENT_WEIGHT_KEY, event_weights, weight_source
from models.input.timeline_dataset import TimelineDataset

IDS: dict[str, Any] = {"query_id": "user", "candidate_id": "item"}


def test_event_types_not_named_weigh_one():
    types = tf.constant([["buy", "view"], ["seen", ""]])
    weights = event_weights(types, {"buy": 5.0, "view": 0.0})
    assert weights.numpy().tolist() == [[5.0, 0.0], [1.0, 1.0]]


def test_between_two_ratings_the_weight_is_between_theirs():
    ratings = tf.constant([0.0, 1.0, 2.0, 3.0, 4.5, 5.0, 9.0])
    weights = event_weights(ratings, {"5": 1.0, "3": 0.4, "1": 0.0})
    np.testing.assert_allclose(weights, [0.0, 0.0, 0.2, 0.4, 0.85, 1.0, 1.0], rtol=1e-6)


def test_types_decide_before_ratings_and_nothing_without_weights():
    both = ColumnsConfig(**IDS, rating="stars", event_type="did")
    assert weight_source(both, {"buy": 2.0}) == "event_type"
    assert weight_source(ColumnsConfig(**IDS, rating="stars"), {"5": 1.0}) == "rating"
    assert weight_source(both, {}) is None
    assert weight_source(ColumnsConfig(**IDS), {}) is None


def test_weights_need_a_column_and_ratings_numbers():
    with pytest.raises(ValueError, match=r"needs `events\.event_type` or"):
        weight_source(ColumnsConfig(**IDS), {"buy": 2.0})
    with pytest.raises(ValueError, match="must have numbers as keys, got 'buy'"):
        weight_source(ColumnsConfig(**IDS, rating="stars"), {"buy": 2.0})


@pytest.mark.parametrize(
    ("column", "key", "values", "weights"),
    [
        ("rating", "rating", [[5.0, 1.0, 3.0], [3.0]], {"1": 0.0, "5": 1.0}),
        ("event_type", "event_type", [["buy", "look", "view"], ["view"]], {"look": 0, "view": 0.5}),
    ],
)
def test_batches_hold_a_weight_beside_each_event(
    tmp_path: Path,
    write_examples: Any,
    column: str,
    key: str,
    values: list[list[Any]],
    weights: dict[str, float],
):
    rows = [
        {"user": [user], "item": list(range(len(mine))), key: mine}
        for user, mine in enumerate(values)
    ]
    spec = FeatureSpec(columns=ColumnsConfig(**IDS, **{column: column}))
    made = TimelineDataset(
        [write_examples(tmp_path, rows)], spec, 2, 0.0, seed=1, event_weights=weights
    )
    (batch,) = made.epochs(0, 1)
    for row, user in enumerate(batch["user"][:, 0].numpy()):
        events = batch["item"][row].numpy() >= 0
        expected = [[1.0, 0.0, 0.5], [0.5]][user]
        np.testing.assert_allclose(batch[EVENT_WEIGHT_KEY][row].numpy()[events], expected)
