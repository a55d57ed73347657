"""Training, the SavedModel and a real server compute the same vectors, with any encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.config import ModelConfig, TrainingConfig
from models.features.spec import FeatureSpec
from models.input.transformed_features import type_indices
from models.towers.saved_towers import SavedTowers
from models.training.two_tower_model import TwoTowerModel
from serving.clients import Query, RetrievalClient
from serving.errors import NotFoundError
from serving.launcher import running_model_server
from tests.models.conftest import export_model, random_model, raw_queries

# A Transform graph is traced for each encoder, and a server started.
pytestmark = pytest.mark.slow

MAX_HISTORY = 3
ENCODERS: dict[str, dict[str, Any]] = {
    "none": {"query_id_embedding": True},
    "mean": {},
    "recency": {
        "recency_positions": 2,
        "recency_heads": 2,
        "share_candidate_ids": True,
        "similarity": "cosine",
    },
    "recency_attention": {"recency_positions": 2, "recency_heads": 2},
}
# Longer than `MAX_HISTORY`, with a candidate twice.
TIMELINE = ["a b", "ü→漢", "a b", "c", "a", "d"]
DEVICES = ["web", "app", "", "web", "app", "web"]
TYPES = ["view", "buy", "buy", "other", "view", ""]
USER = "u2"


HISTORIES = [TIMELINE[:length] for length in range(len(TIMELINE))]
# Unknown candidates are removed before the newest events are taken.
WITH_UNKNOWN, WITHOUT = ["d", "c", "new", "a", "newer"], ["d", "c", "a"]
# A client may give fewer types than events.
SENT = [
    *[(history, TYPES[: len(history)], DEVICES[len(history)]) for history in HISTORIES],
    (WITH_UNKNOWN, ["view", "buy", "view"], "web"),
    (WITHOUT, ["view", "buy"], "web"),
]


@dataclass(frozen=True)
class Answers:
    """Vectors of `HISTORIES` by three ways, and of two more histories from the server."""

    trained: np.ndarray
    saved: np.ndarray
    served: np.ndarray
    with_unknown: np.ndarray
    without: np.ndarray


@pytest.fixture(scope="module")
def answers(
    transformed: Any, raw_spec: FeatureSpec, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Answers]:
    folder = tmp_path_factory.mktemp("parity")
    sent = raw_queries(
        [
            {
                "user": USER,
                "history": history,
                "history_types": TYPES[: len(history)],
                "device": DEVICES[len(history)],
            }
            for history in HISTORIES
        ]
    )
    training = TrainingConfig(objective="next_candidate")
    models = {
        name: random_model(
            transformed,
            ModelConfig(dimension=4, max_history=MAX_HISTORY, history_encoder=name, **settings),
            training,
        )
        for name, settings in ENCODERS.items()
    }
    for version, (name, model) in enumerate(models.items(), start=1):
        export_model(model, transformed.output, str(folder / name / str(version)))
    found = {}
    base = folder / "served"
    (first, *_) = ENCODERS
    (folder / first).rename(base)
    with running_model_server(base) as server:
        for version, (name, model) in enumerate(models.items(), start=1):
            if name != first:
                (folder / name / str(version)).rename(base / str(version))
            saved = SavedTowers(str(base / str(version)), raw_spec)
            *served, with_unknown, without = ask(server.grpc_target, version)
            found[name] = Answers(
                trained(model, transformed),
                saved.embed_queries(sent),
                np.array(served),
                np.array(with_unknown),
                np.array(without),
            )
    return found


def ask(target: str, version: int) -> list[list[float]]:
    """Asks the server for every history, once it has the version."""
    queries = [
        Query(USER, history, {"history_types": types, "device": device})
        for history, types, device in SENT
    ]
    with RetrievalClient(target, model_version=version, query_id_name="user") as client:
        deadline = time.monotonic() + 60
        while True:
            try:
                return [list(vector.values) for vector in client.embed_queries(queries)]
            except NotFoundError:
                assert time.monotonic() < deadline, f"version {version} was never loaded"
                time.sleep(0.1)


def trained(model: TwoTowerModel, transformed: Any) -> np.ndarray:
    """Return the query embeddings that training computes before each event of `TIMELINE`."""
    user = transformed.timelines[1]["user"]  # that of `USER`
    history = tf.constant([[transformed.index(item) for item in TIMELINE]])
    inputs = {
        "user": tf.constant([user], tf.int32),
        "age": tf.constant([[float("nan")]]),
        "visits": tf.constant([[-1]]),
        "country": tf.constant([[-1]]),
        "device": tf.constant([[transformed.device(name) for name in DEVICES]]),
        "history_types": type_indices(tf.constant([TYPES]), model.spec),
    }
    vectors: np.ndarray = model.embed_positions(inputs, history).numpy()
    return vectors


@pytest.mark.parametrize("encoder", ENCODERS)
def test_training_export_and_server_agree_before_each_event(
    answers: dict[str, Answers], encoder: str
):
    found = answers[encoder]
    np.testing.assert_allclose(found.saved, found.trained, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.served, found.trained, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.with_unknown, found.without, rtol=1e-4, atol=1e-5)
    distinct = len(np.unique(found.trained.round(3), axis=0))
    # The first history is empty, and the newest three events are often the same.
    assert distinct == len(set(DEVICES)) if encoder == "none" else distinct > 3
