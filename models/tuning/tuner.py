"""The `tuner_fn` of TFX's Tuner: searches the configured space of settings."""

import hashlib
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trial_module
from keras_tuner.errors import FailedTrialError
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from models.config import HoldoutMetric, RangeConfig, TuningConfig
from models.errors import AllTrialsFailedError
from models.settings import Settings
from models.training.checkpoints_and_early_stopping import progress
from models.training.holdout_ranks import holdout_ranks
from models.training.trainer import (
    TrainerConfig,
    fit,
    make_model,
    make_timelines,
    matching_files,
)
from models.tuning.search_space import apply, chosen_values, encode, is_integer

TUNER_KEY = "tuner"
_EPOCHS_KEY = "tuner/epochs"
_NEVER_S = 1e9


class TunerConfig(Settings):
    """Configuration of `tuner_fn`, whose fields are in `custom_config[TUNER_KEY]`."""

    trainer: TrainerConfig
    metric: str
    exclude_seen: bool


@dataclass(frozen=True)
class TrialOutcome:
    """Result of one trial.

    Attributes:
        values: Values by setting.
        score: Value of the metric; None if the trial failed.
        failure: Reason of the failure; empty if the trial succeeded.
    """

    values: dict[str, Any]
    score: float | None
    failure: str


class TimelineTuner(base_tuner.BaseTuner):
    """Tuner that trains the towers per trial and measures them on held-out training timelines.

    If a trial fails, it is logged and the search continues.
    """

    def __init__(self, config: TunerConfig, fn_args: FnArgs, directory: Path) -> None:
        self._config = config
        self._transform = tft.TFTransformOutput(fn_args.transform_graph_path)
        self._train_files = matching_files(fn_args.train_files)
        self._candidate_files = matching_files(fn_args.eval_files)
        self._folder = directory
        self._failures: dict[str, str] = {}
        super().__init__(
            make_oracle(config), directory=str(directory), project_name="search", overwrite=False
        )

    def run_trial(self, trial: trial_module.Trial, *fit_args: Any, **fit_kwargs: Any) -> Any:
        """Train the towers with the trial's values, and return the metric."""
        config = self._config
        try:
            score = self._score(dict(trial.hyperparameters.values))
            if not math.isfinite(score):
                raise FailedTrialError(f"{config.metric} is {score}")
        except Exception as error:
            # Any failure, such as lack of memory or values that are invalid together, ends only
            # this trial.
            self._failures[trial.trial_id] = f"{type(error).__name__}: {error}".splitlines()[0]
            raise FailedTrialError(str(error)) from error
        finally:
            tf_keras.backend.clear_session()
        return {config.metric: score}

    def on_trial_end(self, trial: trial_module.Trial) -> None:
        """Log the result of the trial."""
        failure = self._failures.get(trial.trial_id)
        super().on_trial_end(trial)
        done, total = len(self.oracle.end_order), self._config.trainer.tuning.max_trials
        score = self.oracle.trials[trial.trial_id].score
        result = f"failed: {failure}" if failure else f"{self._config.metric} {score:.4f}"
        progress.info("trial %d of %d  %s", done, total, result, extra={"fraction": done / total})

    def on_search_end(self) -> None:
        """Delete the state of the search; raise AllTrialsFailedError if no trial succeeded."""
        outcomes = self.outcomes()
        shutil.rmtree(self._folder, ignore_errors=True)
        if all(outcome.failure for outcome in outcomes):
            shown = "; ".join(f"{outcome.values}: {outcome.failure}" for outcome in outcomes[:3])
            raise AllTrialsFailedError(
                f"at least one trial must succeed, but all {len(outcomes)} trials failed; change "
                f"`tuning.space`. First failures: {shown}"
            )

    def outcomes(self) -> list[TrialOutcome]:
        """Return the results of the finished trials, in order."""
        found = []
        for trial_id in self.oracle.end_order:
            trial = self.oracle.trials[trial_id]
            failed = trial.status != trial_module.TrialStatus.COMPLETED
            message = (trial.message or "it failed").strip().splitlines()[-1]
            found.append(
                TrialOutcome(
                    chosen_values(trial.hyperparameters.values, self._config.trainer.tuning),
                    None if failed else float(trial.score),
                    self._failures.get(trial_id, message) if failed else "",
                )
            )
        return found

    def _score(self, values: dict[str, Any]) -> float:
        configured, tuning = self._config.trainer, self._config.trainer.tuning
        model_config, training = apply(
            chosen_values(values, tuning), configured.model, configured.training
        )
        training = training.model_copy(
            update={
                "validation_fraction": tuning.holdout_fraction,
                "checkpoint_every_s": _NEVER_S,
                # Trials run one after the other, each on one device.
                "strategy": "none",
                "epochs": values.get(_EPOCHS_KEY, training.epochs),
            }
        )
        tf_keras.utils.set_random_seed(training.seed)
        trainer = configured.model_copy(update={"model": model_config, "training": training})
        timelines = make_timelines(trainer, self._train_files)
        model = make_model(trainer, self._transform, self._candidate_files, timelines.num_timelines)
        folder = self._folder / "fit"
        state = fit(
            model,
            timelines,
            training,
            folder,
            log_dir=str(folder / "log"),
            # As in the final training: without validation timelines, it keeps the last epoch.
            keep_best=configured.training.validation_fraction > 0,
        )
        ranks = holdout_ranks(
            model,
            timelines.validation() or (),
            trainer.spec,
            # All trials are measured with the same queries, even if their objectives differ.
            configured.training.objective,
            exclude_seen=self._config.exclude_seen,
            seed=tuning.seed,
        )
        state.discard()
        return HoldoutMetric.parse(self._config.metric).mean(ranks)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Return the tuner; `custom_config[TUNER_KEY]` contains the fields of a `TunerConfig`."""
    config = TunerConfig.model_validate(fn_args.custom_config[TUNER_KEY])
    tf.config.experimental.enable_op_determinism()
    # A killed search resumes with its next trial if and only if its inputs are the same.
    inputs = "\n".join(
        [config.model_dump_json(), fn_args.transform_graph_path, *fn_args.train_files]
    )
    digest = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    directory = Path(config.trainer.checkpoint_dir) / f"search-{digest}"
    return TunerFnResult(TimelineTuner(config, fn_args, directory), fit_kwargs={})


def make_oracle(config: TunerConfig) -> keras_tuner.Oracle:
    """Return the configured KerasTuner oracle, which chooses the trials."""
    tuning = config.trainer.tuning
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(config.metric, "max"),
        "hyperparameters": hyperparameters(tuning),
        # KerasTuner treats 0 as no seed.
        "seed": tuning.seed + 1,
        "allow_new_entries": False,
        "tune_new_entries": False,
        # If all trials fail, `on_search_end` reports the reasons.
        "max_consecutive_failed_trials": tuning.max_trials + 1,
    }
    if tuning.algorithm == "hyperband":
        oracle = HyperbandOracle(max_epochs=config.trainer.training.epochs, **common)
        oracle.max_trials = tuning.max_trials
        return oracle
    kind: Callable[..., keras_tuner.Oracle] = {
        "random": RandomSearchOracle,
        "bayesian": BayesianOptimizationOracle,
    }[tuning.algorithm]
    return kind(max_trials=tuning.max_trials, **common)


def hyperparameters(tuning: TuningConfig) -> keras_tuner.HyperParameters:
    """Return the search space as KerasTuner's `HyperParameters`."""
    space = keras_tuner.HyperParameters()
    for name, choices in tuning.space.items():
        if not isinstance(choices, RangeConfig):
            space.Choice(name, encode(choices))
        elif is_integer(name):
            space.Int(name, int(choices.min), int(choices.max), sampling=choices.scale)
        else:
            space.Float(name, choices.min, choices.max, sampling=choices.scale)
    return space
