"""Helpers that train small models, and that kill a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.features.vocabularies import FeatureSizes
from models.input.timeline_dataset import TimelineDataset
from models.training.checkpoints_and_early_stopping import FitState
from models.training.trainer import fit
from models.training.two_tower_model import TwoTowerModel
from tests.builders import feature_spec
from tests.models.conftest import NUM_ITEMS, NUM_USERS, Communities

QUICK: dict[str, Any] = {
    "epochs": 25,
    "batch_size": 8,
    "learning_rate": 0.02,
    # A schedule spans the epochs, and these tests compare fits of different lengths.
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "num_negatives": 16,
}


def model_of_ids(
    config: ModelConfig,
    training: TrainingConfig,
    counts: np.ndarray,
    num_queries: int = 0,
    num_timelines: int = NUM_USERS,
) -> TwoTowerModel:
    """Return a model of users and items without features, with these events per item."""
    sizes = FeatureSizes(num_queries + 1, len(counts) + 1, features={})
    return TwoTowerModel(feature_spec(), sizes, config, training, {}, counts, num_timelines)


class Fitting:
    """A model of the communities and its training data."""

    def __init__(
        self,
        communities: Communities,
        folder: Path,
        model: dict[str, Any] | None = None,
        initial_seed: int | None = None,
        **training: Any,
    ) -> None:
        self.communities = communities
        self.training = TrainingConfig(**{**QUICK, **training})
        self.initial_seed = self.training.seed if initial_seed is None else initial_seed
        config = ModelConfig(**{"dimension": 8, **(model or {})})
        self.model = model_of_ids(config, self.training, communities.counts, NUM_USERS)
        self.timelines = TimelineDataset(
            communities.files,
            communities.spec,
            self.training.batch_size,
            self.training.validation_fraction,
            self.training.seed,
        )
        self.folder = folder

    def fit(self, measure: Callable[[], float] | None = None) -> FitState:
        # Weights are drawn where a layer is first called; the order of tf.data depends on the
        # global seed too, which `run_fn` sets to the training's.
        tf_keras.utils.set_random_seed(self.initial_seed)
        self.model.compute_loss({"user": tf.constant([[0]]), "item": tf.constant([[0]])})
        tf_keras.utils.set_random_seed(self.training.seed)
        return fit(
            self.model,
            self.timelines,
            self.training,
            self.folder / "state",
            str(self.folder),
            measure=measure,
        )

    @property
    def loss(self) -> float:
        losses = [
            float(self.model.compute_loss(batch)) * len(batch["user"])
            for batch in self.timelines.epochs(0, 1)
        ]
        return sum(losses) / self.timelines.num_timelines

    @property
    def weights(self) -> list[np.ndarray]:
        return self.model.get_weights()

    def best(self, users: list[int], history: list[list[int]], k: int) -> np.ndarray:
        tower = self.model.query_tower
        encoded: Any = 0.0
        if self.model.config.encodes_history:
            padded = tf.ragged.constant(history, tf.int32, ragged_rank=1).to_tensor(-1)
            encoded = tower.encode(padded)
        queries = tower(tf.constant(users), {}, encoded)
        vectors = self.model.candidates(tf.range(NUM_ITEMS))
        return np.argsort(-tf.matmul(queries, vectors, transpose_b=True).numpy(), axis=1)[:, :k]


def assert_equal(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


class KilledError(Exception):
    pass


def kill_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    end_of_epoch = FitState.on_epoch_end

    def ended(state: FitState, epoch: int, logs: dict[str, Any] | None = None) -> None:
        end_of_epoch(state, epoch, logs)
        if epoch + 1 == epochs:
            raise KilledError

    monkeypatch.setattr(FitState, "on_epoch_end", ended)
