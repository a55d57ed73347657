"""Training on two communities that a working model separates, and resuming after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from models.config import ModelConfig, TrainingConfig
from models.features.spec import FeatureSpec
from models.training.trainer import TRAINER_KEY, TrainerConfig, run_fn
from tests.models.conftest import NUM_ITEMS, NUM_USERS, raw_queries
from tests.models.fitting import Fitting, KilledError, assert_equal, kill_after


@pytest.mark.parametrize("objective", ["reconstruct", "next_candidate"])
@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_communities_are_found_from_a_single_event(
    fitting: Callable[..., Fitting], objective: str, loss: str
):
    run = fitting(objective=objective, loss=loss)
    before = run.loss
    run.fit()
    assert run.loss < 0.9 * before
    unknown = [NUM_USERS] * NUM_ITEMS
    # A community has ten items: all of them come before those of the other.
    for item, best in enumerate(run.best(unknown, [[item] for item in range(NUM_ITEMS)], k=10)):
        own = run.communities.items(run.communities.of(item))
        assert len(own & set(best.tolist())) >= 9


@pytest.mark.parametrize(
    "model",
    [
        {"history_encoder": "none", "query_id_embedding": True},
        {"similarity": "cosine", "temperature": 0.2, "query_id_embedding": True},
        {"query_id_embedding": True, "query_hidden_layers": (8,), "candidate_hidden_layers": (8,)},
        {"history_encoder": "recency", "recency_positions": 3, "share_candidate_ids": True},
        {"history_encoder": "recency_attention", "attention_dropout": 0.1},
    ],
)
def test_communities_are_found_by_every_kind_of_tower(
    fitting: Callable[..., Fitting], model: dict[str, Any]
):
    run = fitting(model=model)
    run.fit()
    users = list(range(NUM_USERS))
    for user, best in enumerate(run.best(users, run.communities.timelines, k=10)):
        own = run.communities.items(run.communities.of(user))
        assert len(own & set(best.tolist())) >= 9


def test_the_same_seed_gives_the_same_weights(fitting: Callable[..., Fitting]):
    one, again, other = (
        fitting(folder, epochs=2, seed=seed)
        for folder, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    for run in (one, again, other):
        run.fit()
    assert_equal(again.weights, one.weights)
    assert any(np.any(a != b) for a, b in zip(other.weights, one.weights, strict=True))


@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_a_fit_that_is_resumed_ends_where_the_uninterrupted_one_does(
    fitting: Callable[..., Fitting], loss: str
):
    whole = fitting("whole", epochs=4, loss=loss)
    whole.fit()
    fitting("cut", epochs=2, loss=loss, checkpoint_every_s=0).fit()
    # Other initial weights: all must come from the checkpoint.
    resumed = fitting("cut", epochs=4, loss=loss, initial_seed=999)
    resumed.fit()
    assert_equal(resumed.weights, whole.weights)


def test_a_killed_fit_without_a_checkpoint_starts_from_scratch(
    fitting: Callable[..., Fitting], monkeypatch: pytest.MonkeyPatch
):
    whole = fitting("whole", epochs=4)
    whole.fit()
    with monkeypatch.context() as patched:
        kill_after(2, patched)
        with pytest.raises(KilledError):
            fitting("killed", epochs=4, checkpoint_every_s=3600).fit()
    again = fitting("killed", epochs=4)
    again.fit()
    assert_equal(again.weights, whole.weights)


def test_a_finished_fit_is_not_fitted_again(fitting: Callable[..., Fitting]):
    first = fitting(epochs=2, checkpoint_every_s=0)
    first.fit()
    again = fitting(epochs=2, checkpoint_every_s=0, initial_seed=999)
    again.fit()
    assert_equal(again.weights, first.weights)


@pytest.mark.slow
def test_run_fn_fits_exports_and_clears_up(
    transformed: Any, raw_spec: FeatureSpec, tmp_path: Path, deterministic: None
):
    config = TrainerConfig(
        spec=raw_spec,
        model=ModelConfig(dimension=4),
        training=TrainingConfig(
            epochs=2, batch_size=2, checkpoint_every_s=0, validation_fraction=0.3
        ),
        watched="hit_rate@1",
        checkpoint_dir=str(tmp_path / "checkpoints"),
        code_hash="",
    )

    arguments = FnArgs(
        train_files=transformed.timeline_files,
        eval_files=transformed.catalogue_files,
        transform_output=transformed.directory,
        custom_config={TRAINER_KEY: config.model_dump(mode="json")},
        model_run_dir=str(tmp_path / "logs"),
        serving_model_dir=str(tmp_path / "export"),
    )
    run_fn(arguments)
    # Exported, so no longer needed.
    assert not any((tmp_path / "checkpoints").iterdir())
    module = tf.saved_model.load(arguments.serving_model_dir)
    row = {"user": "u 1", "age": 33.0, "visits": 3.0, "country": "CH", "history": ["a b"]}
    query = raw_queries([row])
    embedding = module.signatures["embed_query"](**query)["embedding"].numpy()
    assert np.all(np.isfinite(embedding))
    assert np.any(embedding[:, :-1] != 0)
