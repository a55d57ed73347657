"""Fitting on two communities that a working model tells apart, and going on after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs

from models.candidate_table import CandidateTable
from models.config import ModelConfig, TrainingConfig
from models.features import FeatureSpec
from models.fit_state import FitState
from models.sizes import FeatureSizes
from models.timeline_dataset import TimelineDataset
from models.trainer import TRAINER_KEY, TrainerConfig, fit, run_fn
from models.two_tower import TwoTowerModel, _shuffled

NUM_USERS, NUM_ITEMS = 48, 20
QUICK: dict[str, Any] = {
    "epochs": 25,
    "batch_size": 8,
    "learning_rate": 0.02,
    # A schedule spans the epochs, and these tests compare fits of different lengths.
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "num_negatives": 16,
}


class Fitting:
    """A model of the communities and the data to fit it on."""

    def __init__(
        self,
        communities: Any,
        folder: Path,
        model: dict[str, Any] | None = None,
        initial_seed: int | None = None,
        **training: Any,
    ) -> None:
        self.communities = communities
        self.training = TrainingConfig(**{**QUICK, **training})
        self.initial_seed = self.training.seed if initial_seed is None else initial_seed
        self.model = TwoTowerModel(
            communities.spec,
            FeatureSizes(queries=NUM_USERS + 1, candidates=NUM_ITEMS + 1, features={}),
            ModelConfig(**{"dimension": 8, **(model or {})}),
            self.training,
            CandidateTable(NUM_ITEMS, {}),
            communities.counts,
        )
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
        if self.model.encodes_history:
            padded = tf.ragged.constant(history, tf.int32, ragged_rank=1).to_tensor(-1)
            encoded = tower.encode(padded)
        queries = tower(tf.constant(users), {}, encoded)
        vectors = self.model.candidates(tf.range(NUM_ITEMS))
        return np.argsort(-tf.matmul(queries, vectors, transpose_b=True).numpy(), axis=1)[:, :k]


@pytest.fixture
def fitting(communities: Any, tmp_path: Path, deterministic: None) -> Callable[..., Fitting]:
    def make(folder: str = "run", **settings: Any) -> Fitting:
        return Fitting(communities, tmp_path / folder, **settings)

    return make


def assert_equal(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def differ(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return any(np.any(a != b) for a, b in zip(one, other, strict=True))


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
        {"history_encoder": "recency", "recency_places": 3, "share_candidate_ids": True},
        {"history_encoder": "gru"},
        {"history_encoder": "self_attention", "attention_layers": 1},
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
    assert differ(other.weights, one.weights)


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


class KilledError(Exception):
    pass


def kill_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    end_of_epoch = FitState.on_epoch_end

    def ended(state: FitState, epoch: int, logs: dict[str, Any] | None = None) -> None:
        end_of_epoch(state, epoch, logs)
        if epoch + 1 == epochs:
            raise KilledError

    monkeypatch.setattr(FitState, "on_epoch_end", ended)


def test_a_killed_fit_without_a_checkpoint_begins_anew(
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


def test_discarding_the_state_makes_the_next_fit_begin_anew(fitting: Callable[..., Fitting]):
    run = fitting(epochs=2, checkpoint_every_s=0)
    state = run.fit()
    state.discard()
    assert not (run.folder / "state").exists()
    assert fitting(epochs=2).fit() is not None


EARLY: dict[str, Any] = {
    # A rate at which the loss soon rises again.
    "learning_rate": 0.3,
    "epochs": 30,
    "validation_fraction": 0.3,
    "early_stopping_patience": 3,
    "checkpoint_every_s": 0,
    # One validation batch: its loss is that of the whole validation set.
    "batch_size": 64,
}


@pytest.fixture
def validation_losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    losses: list[float] = []
    end_of_epoch = FitState.on_epoch_end

    def ended(state: FitState, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        losses.append(logs["val_loss"])
        end_of_epoch(state, epoch, logs)

    monkeypatch.setattr(FitState, "on_epoch_end", ended)
    return losses


def validation_loss(run: Fitting) -> float:
    (batch,) = run.timelines.validation()
    return float(run.model.compute_loss(batch))


def test_early_stopping_ends_at_the_best_weights(
    fitting: Callable[..., Fitting], validation_losses: list[float]
):
    run = fitting(**EARLY)
    run.fit()
    assert len(validation_losses) < 30
    best = int(np.argmin(validation_losses))
    assert len(validation_losses) == best + 1 + 3
    assert validation_loss(run) == pytest.approx(validation_losses[best], rel=1e-5)


def test_a_metric_may_stop_the_fit_instead_of_the_loss(fitting: Callable[..., Fitting]):
    run = fitting(**EARLY)
    seen: list[list[np.ndarray]] = []

    def measure() -> float:
        seen.append(run.weights)
        return [0.1, 0.7, 0.3, 0.7, 0.2][len(seen) - 1]

    run.fit(measure)
    assert len(seen) == 5  # the fourth is no better than the second
    assert_equal(run.weights, seen[1])


@pytest.mark.slow
def test_early_stopping_survives_a_kill(
    fitting: Callable[..., Fitting],
    validation_losses: list[float],
    monkeypatch: pytest.MonkeyPatch,
):
    whole = fitting("whole", **EARLY)
    whole.fit()
    uninterrupted = list(validation_losses)
    validation_losses.clear()
    # After the best epoch, while patience runs out.
    killed_after = len(uninterrupted) - 1
    with monkeypatch.context() as patched:
        kill_after(killed_after, patched)
        with pytest.raises(KilledError):
            fitting("killed", **EARLY).fit()
    resumed = fitting("killed", **EARLY, initial_seed=999)
    resumed.fit()
    assert validation_losses == pytest.approx(uninterrupted, rel=0, abs=0)
    assert_equal(resumed.weights, whole.weights)
    # And once it has stopped, it stays so.
    again = fitting("killed", **EARLY, initial_seed=998)
    again.fit()
    assert len(validation_losses) == len(uninterrupted)
    assert_equal(again.weights, whole.weights)


def test_the_validation_loss_is_that_of_all_batches(
    fitting: Callable[..., Fitting], validation_losses: list[float]
):
    run = fitting(**{**EARLY, "epochs": 1, "batch_size": 4})
    run.fit()
    batches = list(run.timelines.validation())
    assert len(batches) > 2
    losses = [float(run.model.compute_loss(batch)) for batch in batches]
    events = [int(tf.math.count_nonzero(batch["item"] >= 0)) for batch in batches]
    # The last batch is 10 % off; whether batches count alike or by events matters less.
    assert validation_losses[0] == pytest.approx(np.average(losses, weights=events), rel=0.03)


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


def loss_by_hand(run: Fitting, asked: list[tuple[list[int], list[int]]]) -> float:
    """The mean of -log softmax of each target, asked with its history."""
    tower, losses = run.model.query_tower, []
    for history, targets in asked:
        events = tf.constant([history], tf.int32, [1, len(history)])
        query = tower(tf.constant([0]), {}, tower.encode(events))
        scores = tf.matmul(query, run.model.candidates(tf.range(NUM_ITEMS)), transpose_b=True)
        losses += [-float(tf.nn.log_softmax(scores)[0, target]) for target in targets]
    return float(np.mean(losses))


BATCH = {"user": tf.constant([[0], [1]]), "item": tf.constant([[2, 5, 7], [4, -1, -1]])}


@pytest.mark.parametrize(
    ("objective", "max_history", "asked"),
    [
        ("reconstruct", 10, [([2, 5, 7], [2, 5, 7]), ([4], [4])]),
        # What serving would not look at is still a target.
        ("reconstruct", 2, [([5, 7], [2, 5, 7]), ([4], [4])]),
        ("next_candidate", 10, [([], [2]), ([2], [5]), ([2, 5], [7]), ([], [4])]),
        ("next_candidate", 1, [([], [2]), ([2], [5]), ([5], [7]), ([], [4])]),
    ],
)
def test_each_event_is_asked_from_the_history_that_serving_would_see(
    fitting: Callable[..., Fitting],
    objective: str,
    max_history: int,
    asked: list[tuple[list[int], list[int]]],
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
    assert loss == pytest.approx(loss_by_hand(run, asked), rel=1e-5)


@pytest.mark.parametrize("objective", ["reconstruct", "next_candidate"])
@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_an_event_counts_by_its_weight(fitting: Callable[..., Fitting], objective: str, loss: str):
    run = fitting(objective=objective, loss=loss)

    def of(*weights: float) -> float:
        row = {"user": tf.constant([[0]]), "item": tf.constant([[2, 5, 7, -1]])}
        return float(
            run.model.compute_loss({**row, "event_weight": tf.constant([weights], tf.float32)})
        )

    each = [of(*np.eye(4)[place]) for place in range(3)]
    assert len(set(each)) == 3
    assert of(1.0, 1.0, 1.0, 0.0) == pytest.approx(np.mean(each), rel=1e-5)
    assert of(2.0, 0.0, 6.0, 9.0) == pytest.approx((each[0] + 3 * each[2]) / 4, rel=1e-5)
    assert of(0.0, 0.0, 0.0, 0.0) == 0.0


def loss_of(num_candidates: int, num_timelines: int | None, **training: Any) -> bool:
    events = np.ones(num_candidates, np.int64) * 100
    model = TwoTowerModel(
        FeatureSpec.model_validate({"columns": {"query_id": "user", "candidate_id": "item"}}),
        FeatureSizes(queries=1, candidates=num_candidates + 1, features={}),
        ModelConfig(dimension=2),
        TrainingConfig(batch_size=10, **training),
        CandidateTable(num_candidates, {}),
        events,
        num_timelines,
    )
    return model.takes_whole_catalogue


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
        shuffled, weights = _shuffled(history, weight, tf.constant([seed, 0]))
        np.testing.assert_array_equal(weights, tf.cast(shuffled, tf.float32) / 10)
        shuffled = shuffled.numpy()
        assert sorted(shuffled[0, :5]) == [1, 2, 3, 4, 5]
        np.testing.assert_array_equal(shuffled[:, 5:], -1)
        assert shuffled[1, 0] == 6
        orders.add(tuple(shuffled[0]))
    assert len(orders) > 10
    batch = {"user": tf.zeros([2, 1], tf.int32), "item": history}
    assert np.isfinite(run.model.compute_loss(batch, training=True, seed=tf.constant([1, 2])))


def test_popular_candidates_are_corrected_for_in_the_sampled_loss(
    fitting: Callable[..., Fitting],
):
    # Untrained, all logits are near 0: both losses are near log(20).
    full, sampled = (
        fitting(loss=loss, num_negatives=4000).loss for loss in ("full_softmax", "sampled_softmax")
    )
    assert full == pytest.approx(math.log(NUM_ITEMS), abs=0.05)
    assert sampled == pytest.approx(full, abs=0.1)


@pytest.mark.slow
def test_run_fn_fits_exports_and_clears_up(
    transformed: Any,
    raw_spec: FeatureSpec,
    tmp_path: Path,
    deterministic: None,
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
        custom_config={TRAINER_KEY: config.model_dump_json()},
        model_run_dir=str(tmp_path / "logs"),
        serving_model_dir=str(tmp_path / "export"),
    )
    run_fn(arguments)
    # Exported, so no longer needed.
    assert not any((tmp_path / "checkpoints").iterdir())
    module = tf.saved_model.load(arguments.serving_model_dir)
    query = {
        "user": tf.constant(["u 1"]),
        "age": tf.constant([33.0]),
        "visits": tf.constant([3.0]),
        "country": tf.constant(["CH"]),
        "history": tf.constant([["a b"]]),
    }
    embedding = module.signatures["embed_query"](**query)["embedding"].numpy()
    assert np.all(np.isfinite(embedding))
    assert np.any(embedding[:, :-1] != 0)
