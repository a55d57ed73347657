"""Searches on a few timelines: the chosen values, and trials that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from models.config import ModelConfig, TrainingConfig, TuningConfig
from models.errors import AllTrialsFailedError
from models.features.spec import FeatureSpec
from models.training.trainer import TRAINER_KEY, TrainerConfig
from models.tuning import tuner
from models.tuning.tuner import TimelineTuner, tuner_fn

# Transform takes ten seconds to trace.
pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(transformed: Any, raw_spec: FeatureSpec, tmp_path: Path, deterministic: None) -> Any:
    def make(**tuning: Any) -> FnArgs:
        config = TrainerConfig(
            spec=raw_spec,
            model=ModelConfig(dimension=4),
            training=TrainingConfig(epochs=1, batch_size=4),
            tuning=TuningConfig.model_validate({"holdout_fraction": 0.5, **tuning}),
            checkpoint_dir=str(tmp_path / "checkpoints"),
            code_hash="",
            watched="mrr@5",
        )
        return FnArgs(
            train_files=transformed.timeline_files,
            eval_files=transformed.catalogue_files,
            transform_graph_path=transformed.directory,
            custom_config={TRAINER_KEY: config.model_dump(mode="json")},
        )

    return make


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace training by scores that depend on the values; return the values of each trial."""
    tried: list[dict[str, Any]] = []

    def score(self: TimelineTuner, values: dict[str, Any]) -> float:
        tried.append(values)
        outcome = {
            4: 0.25,
            8: tf.errors.ResourceExhaustedError(None, None, "OOM"),
            16: float("nan"),
        }
        result = outcome.get(values["model.dimension"], 0.5)
        if isinstance(result, Exception):
            raise result
        return float(result)

    monkeypatch.setattr(TimelineTuner, "_score", score)
    return tried


def search(arguments: FnArgs) -> TimelineTuner:
    found = tuner_fn(arguments)
    found.tuner.search(**found.fit_kwargs)
    return found.tuner


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_failed_trials_are_recorded_and_the_search_continues(
    arguments: Any, scores: list[dict[str, Any]], algorithm: str, tmp_path: Path
):
    found = search(
        arguments(space={"model.dimension": [4, 8, 16, 32]}, max_trials=20, algorithm=algorithm)
    )
    outcomes = {each["values"]["model.dimension"]: each for each in found.outcomes()}
    assert {8, 16} <= set(outcomes)
    assert "ResourceExhaustedError" in outcomes[8]["failure"]
    assert "OOM" in outcomes[8]["failure"]
    assert "mrr@5 is nan" in outcomes[16]["failure"]
    assert outcomes[8]["score"] is outcomes[16]["score"] is None
    assert outcomes[32] == {"values": {"model.dimension": 32}, "score": 0.5, "failure": ""}
    assert found.get_best_hyperparameters()[0].values["model.dimension"] == 32
    assert not any((tmp_path / "checkpoints").iterdir())


def test_an_error_gives_the_reasons_if_all_trials_fail(arguments: Any, scores: Any):
    with pytest.raises(AllTrialsFailedError, match=r"all 2 trials failed.*OOM"):
        search(arguments(space={"model.dimension": [8, 16]}))


def test_no_trial_starts_after_the_time_limit(arguments: Any, scores: list[dict[str, Any]]):
    search(arguments(space={"model.dimension": [32, 64]}, max_seconds=1e-9))
    assert len(scores) == 1


def test_the_same_seed_tries_the_same(arguments: Any, scores: list[dict[str, Any]]):
    space = {"training.learning_rate": {"min": 1e-4, "max": 1.0, "scale": "log"},
             "model.dimension": {"min": 20, "max": 4000, "scale": "log"}}  # fmt: skip
    tried = []
    for seed in (0, 0, 1):
        scores.clear()
        search(arguments(space=space, max_trials=4, seed=seed))
        tried.append(json.dumps(scores))
    assert tried[0] == tried[1] != tried[2]


def test_a_killed_search_resumes_with_the_next_trial(
    arguments: Any, scores: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    given = arguments(space={"model.dimension": [32, 64, 128, 256]}, max_trials=4)
    whole = [outcome["values"] for outcome in search(given).outcomes()]
    scores.clear()
    fine = TimelineTuner.run_trial

    def killed(self: TimelineTuner, trial: Any) -> Any:
        if len(scores) == 2:
            raise KeyboardInterrupt
        return fine(self, trial)

    with monkeypatch.context() as patched:
        patched.setattr(TimelineTuner, "run_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            search(given)
    assert [outcome["values"] for outcome in search(given).outcomes()] == whole
    assert len(scores) == 4


def test_hyperband_fits_the_better_ones_longer(arguments: Any, scores: list[dict[str, Any]]):
    given = arguments(
        space={"training.history_dropout": {"min": 0.1, "max": 0.9}, "model.dimension": [32, 64]},
        algorithm="hyperband",
        max_trials=6,
    )
    given.custom_config[TRAINER_KEY]["training"] = TrainingConfig(epochs=9).model_dump(mode="json")
    search(given)
    assert len(scores) == 6
    assert len({values["tuner/epochs"] for values in scores}) > 1 or scores[0]["tuner/epochs"] < 9


def test_a_trial_is_trained_and_measured(arguments: Any, monkeypatch: pytest.MonkeyPatch):
    fitted: list[TrainingConfig] = []
    fit = tuner.fit

    def remember(model: Any, timelines: Any, training: TrainingConfig, *rest: Any, **more: Any):
        fitted.append(training)
        return fit(model, timelines, training, *rest, **more)

    monkeypatch.setattr(tuner, "fit", remember)
    outcomes = search(
        arguments(
            space={
                "recipe": [{}, {"model.kind": "svd", "model.dimension": 6}],
                "training.objective": ["reconstruct", "next_candidate"],
            },
            max_trials=4,
        )
    ).outcomes()
    assert len(outcomes) == 4
    assert {training.validation_fraction for training in fitted} == {0.5}
    for outcome in outcomes:
        assert outcome["failure"] == ""
        assert outcome["score"] is not None
        assert 0 <= outcome["score"] <= 1
