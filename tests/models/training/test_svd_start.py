from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from models.config import ModelConfig
from models.input.timeline_dataset import TimelineDataset
from models.training.svd_start import start_from_svd
from models.truncated_svd import truncated_svd
from tests.models.conftest import (
    NUM_ITEMS,
    NUM_USERS,
    RAW_SPEC,
    Communities,
    Transformed,
    random_model,
)
from tests.models.fitting import Fitting


def scores(run: Fitting, history: list[int]) -> np.ndarray:
    tower = run.model.query_tower
    query = tower(tf.constant([NUM_USERS]), {}, tower.encode(tf.constant([[*history, -1]])))
    vectors = run.model.candidates(tf.range(NUM_ITEMS))
    return np.asarray(tf.matmul(query, vectors, transpose_b=True))[0]


def expected_scores(communities: Communities, history: list[int], dimension: int) -> np.ndarray:
    offsets = np.cumsum([0, *map(len, communities.timelines)])
    events = np.concatenate(communities.timelines)
    of_events, of_candidates = truncated_svd(events, offsets, NUM_ITEMS, dimension)
    return of_events[history].mean(axis=0) @ of_candidates.T


def test_a_model_of_kind_svd_has_the_scores_of_the_decomposition(fitting: Callable[..., Fitting]):
    run = fitting(model={"kind": "svd", "dimension": 6}, validation_fraction=0.0)
    assert run.fit().epochs_done == 0
    for history in ([3], [4, 6, 8], run.communities.timelines[0]):
        expected = expected_scores(run.communities, history, 6)
        np.testing.assert_allclose(scores(run, history), expected, atol=1e-5)
    # Without a history, the most popular candidates come first.
    popular = run.communities.counts[np.argsort(-scores(run, []))]
    np.testing.assert_array_equal(popular, np.sort(run.communities.counts)[::-1])


def test_features_add_nothing_to_a_model_of_kind_svd(transformed: Transformed):
    model = random_model(transformed, ModelConfig(kind="svd", dimension=3))
    start_from_svd(model, TimelineDataset(transformed.timeline_files, RAW_SPEC, 2, 0.0, 1))
    features = {"age": tf.constant([[9.0]])}
    features |= {name: tf.constant([[1]]) for name in ("visits", "country", "device")}
    query = model.query_tower(tf.constant([0]), features, tf.zeros([1, 3]))
    np.testing.assert_array_equal(query, [[0, 0, 0, 1]])
    # d has features, but no events.
    cold = model.candidates(tf.constant([transformed.index("d")]))
    np.testing.assert_allclose(cold, np.zeros([1, 4]), atol=1e-6)


@pytest.mark.parametrize("model", [{}, {"similarity": "cosine"}, {"share_candidate_ids": True}])
def test_training_can_start_from_the_decomposition(
    fitting: Callable[..., Fitting], model: dict[str, Any]
) -> None:
    # The two communities are the first two singular vectors. The biases start from the counts.
    model = {"dimension": 2, "candidate_bias": False, **model}
    run = fitting(model=model, start="svd", epochs=1, learning_rate=1e-6)
    run.fit()
    for item in range(NUM_ITEMS):
        best = np.argsort(-scores(run, [item]))[:8]
        assert set(best.tolist()) <= run.communities.items(run.communities.of(item))


def test_a_model_of_kind_svd_refuses_settings_without_effect():
    with pytest.raises(ValidationError, match='set `similarity: "dot"`, `query_hidden_layers: '):
        ModelConfig(kind="svd", similarity="cosine", query_hidden_layers=(8,))
