"""Searches the configuration's space of settings: the `tuner_fn` of TFX's Tuner."""

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

from models.settings import Settings
from models.training.fit_state import progress
from models.training.holdout_metric import HoldoutMetric
from models.training.holdout_ranks import holdout_ranks
from models.training.trainer import TrainerConfig, fit, make_model, make_timelines, matching
from models.tuning.config import RangeConfig, TuningConfig
from models.tuning.search_space import apply, chosen_values, encode, is_integer

TUNER_KEY = "tuner"
_EPOCHS_KEY = "tuner/epochs"
_NEVER_S = 1e9


class TunerConfig(Settings):
    """The configuration of `tuner_fn`: `custom_config[TUNER_KEY]` holds its fields."""

    trainer: TrainerConfig
    metric: str
    exclude_seen: bool


class AllTrialsFailedError(Exception):
    """No trial of a search came to an end; the space must be changed."""


@dataclass(frozen=True)
class TrialOutcome:
    """What came of one trial.

    Attributes:
        values: By setting.
        score: Of the metric; None where the trial failed.
        failure: Why it failed; empty where it did not.
    """

    values: dict[str, Any]
    score: float | None
    failure: str


class TimelineTuner(base_tuner.BaseTuner):
    """Fits the towers once a trial, and judges them by training timelines held out.

    A trial that fails is told, counts as the worst, and the search goes on.
    """

    def __init__(self, config: TunerConfig, fn_args: FnArgs, directory: Path) -> None:
        self._config = config
        self._transform = tft.TFTransformOutput(fn_args.transform_graph_path)
        self._train_files = matching(fn_args.train_files)
        self._candidate_files = matching(fn_args.eval_files)
        self._folder = directory
        self._failures: dict[str, str] = {}
        super().__init__(
            make_oracle(config), directory=str(directory), project_name="search", overwrite=False
        )

    def run_trial(self, trial: trial_module.Trial, *fit_args: Any, **fit_kwargs: Any) -> Any:
        """Fits with the trial's values; returns the metric."""
        config, values = self._config, dict(trial.hyperparameters.values)
        try:
            score = self._score(values)
            if not math.isfinite(score):
                raise FailedTrialError(f"{config.metric} is {score}")
        except Exception as error:
            # Out of memory, a value that another one forbids, a fit that diverges: it is told, and
            # the others are tried.
            self._failures[trial.trial_id] = f"{type(error).__name__}: {error}".splitlines()[0]
            raise FailedTrialError(str(error)) from error
        finally:
            tf_keras.backend.clear_session()
        return {config.metric: score}

    def on_trial_end(self, trial: trial_module.Trial) -> None:
        """Tells what came of it."""
        failure = self._failures.get(trial.trial_id)
        super().on_trial_end(trial)
        done = len(self.oracle.end_order)
        score = self.oracle.trials[trial.trial_id].score
        result = f"failed: {failure}" if failure else f"{self._config.metric} {score:.4f}"
        progress.info(
            "trial %d of %d  %s",
            done,
            self._config.trainer.tuning.max_trials,
            result,
            extra={"fraction": done / self._config.trainer.tuning.max_trials},
        )

    def on_search_end(self) -> None:
        """Ends a search in which nothing worked."""
        outcomes = self.outcomes()
        shutil.rmtree(self._folder, ignore_errors=True)
        if all(outcome.failure for outcome in outcomes):
            shown = "; ".join(f"{outcome.values}: {outcome.failure}" for outcome in outcomes[:3])
            raise AllTrialsFailedError(
                f"all {len(outcomes)} trials failed, change `tuning.space`: {shown}"
            )

    def outcomes(self) -> list[TrialOutcome]:
        """Returns what came of the trials, in their order."""
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
        config = self._config
        trainer, tuning = config.trainer, config.trainer.tuning
        model_config, training = apply(
            chosen_values(values, tuning), trainer.model, trainer.training
        )
        training = training.model_copy(
            update={
                "validation_fraction": tuning.holdout_fraction,
                "checkpoint_every_s": _NEVER_S,
                # One after the other, each on one device.
                "strategy": "none",
                "epochs": values.get(_EPOCHS_KEY, training.epochs),
            }
        )
        tf_keras.utils.set_random_seed(training.seed)
        trainer = trainer.model_copy(update={"model": model_config, "training": training})
        timelines = make_timelines(trainer, self._train_files)
        model = make_model(trainer, self._transform, self._candidate_files, timelines.num_timelines)
        folder = self._folder / "fit"
        state = fit(
            model,
            timelines,
            training,
            folder,
            log_dir=str(folder / "log"),
            # The final fit ends with its last epoch too, unless it keeps timelines out itself.
            keep_best=config.trainer.training.validation_fraction > 0,
        )
        ranks = holdout_ranks(
            model,
            timelines.validation() or (),
            trainer.spec,
            # All trials answer the same questions, whatever they learn by.
            config.trainer.training.objective,
            exclude_seen=config.exclude_seen,
            seed=tuning.seed,
        )
        state.discard()
        return HoldoutMetric.parse(config.metric).of(ranks)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Makes the search.

    Args:
        fn_args: As `models.training.trainer.run_fn` takes them; `custom_config[TUNER_KEY]` holds
            the fields of a `TunerConfig`.
    """
    config = TunerConfig.model_validate(fn_args.custom_config[TUNER_KEY])
    tf.config.experimental.enable_op_determinism()
    # A killed search goes on with its next trial if, and only if, its inputs are the same.
    inputs = "\n".join(
        [config.model_dump_json(), fn_args.transform_graph_path, *fn_args.train_files]
    )
    digest = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    directory = Path(config.trainer.checkpoint_dir) / f"search-{digest}"
    return TunerFnResult(TimelineTuner(config, fn_args, directory), fit_kwargs={})


def make_oracle(config: TunerConfig) -> keras_tuner.Oracle:
    """Returns what chooses the trials."""
    tuning = config.trainer.tuning
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(config.metric, "max"),
        "hyperparameters": hyperparameters(tuning),
        # KerasTuner takes 0 for no seed.
        "seed": tuning.seed + 1,
        "allow_new_entries": False,
        "tune_new_entries": False,
        # A search in which every trial fails ends of itself, with what all of them said.
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
    """Returns the space as KerasTuner describes it."""
    space = keras_tuner.HyperParameters()
    for name, choices in tuning.space.items():
        if not isinstance(choices, RangeConfig):
            space.Choice(name, encode(choices))
        elif is_integer(name):
            space.Int(name, int(choices.min), int(choices.max), sampling=choices.scale)
        else:
            space.Float(name, choices.min, choices.max, sampling=choices.scale)
    return space
