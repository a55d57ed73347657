"""The `tuner_fn` of TFX's Tuner: searches the configured space of settings."""

import math
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Any

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

from models.config import RangeConfig, TuningConfig
from models.errors import AllTrialsFailedError
from models.training.checkpoints_and_early_stopping import progress
from models.training.holdout_ranks import holdout_metric
from models.training.trainer import (
    TRAINER_KEY,
    TrainerConfig,
    checkpoint_folder,
    fit,
    make_model,
    make_timelines,
    matching_files,
)
from models.tuning.search_space import (
    apply,
    chosen_values,
    encode,
    is_integer,
    searches_ranker,
)

if TYPE_CHECKING:
    from models.tuning.ranker_trials import RankerTrials

_EPOCHS_KEY = "tuner/epochs"
_NEVER_S = 1e9


class TimelineTuner(base_tuner.BaseTuner):
    """Tuner that trains the towers per trial and measures them on held-out training timelines.

    A search of the ranker trains the towers once, and a ranker per trial. If a trial fails, it is
    logged and the search continues.
    """

    def __init__(self, config: TrainerConfig, fn_args: FnArgs) -> None:
        self._config, self._fn_args = config, fn_args
        self._of_ranker: RankerTrials | None = None
        self._transform = tft.TFTransformOutput(fn_args.transform_graph_path)
        self._train_files = matching_files(fn_args.train_files)
        self._candidate_files = matching_files(fn_args.eval_files)
        # A killed search resumes with its next trial if and only if its inputs are the same.
        inputs = fn_args.transform_graph_path, *fn_args.train_files
        self._folder = checkpoint_folder(config, *inputs)
        folder, self._started_s = str(self._folder), time.monotonic()
        super().__init__(make_oracle(config), directory=folder, project_name="search")

    def on_search_begin(self) -> None:
        """Train the retriever of a search of the ranker."""
        super().on_search_begin()
        if searches_ranker(self._config.tuning):
            # Imported on demand: without a ranker, it would only take time.
            from models.tuning.ranker_trials import RankerTrials

            self._of_ranker = RankerTrials(self._config, self._fn_args, self._folder / "retriever")

    def run_trial(self, trial: trial_module.Trial, *fit_args: Any, **fit_kwargs: Any) -> Any:
        """Train the towers with the trial's values, and return the metric."""
        try:
            score = self._score(dict(trial.hyperparameters.values))
            if not math.isfinite(score):
                raise FailedTrialError(f"{self._config.watched} is {score}")
        except Exception as error:
            # Any failure, such as lack of memory or values that are invalid together, ends only
            # this trial.
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise FailedTrialError(reason) from error
        finally:
            tf_keras.backend.clear_session()
        return {self._config.watched: score}

    def on_trial_end(self, trial: trial_module.Trial) -> None:
        """Log the result of the trial."""
        super().on_trial_end(trial)
        outcomes, total = self.outcomes(), self._config.tuning.max_trials
        limit_s = self._config.tuning.max_seconds
        if limit_s is not None and time.monotonic() - self._started_s > limit_s:
            # KerasTuner asks for no trial beyond this number.
            self.oracle.max_trials = total = len(outcomes)
        done, failure, score = len(outcomes), outcomes[-1]["failure"], outcomes[-1]["score"]
        result = f"failed: {failure}" if failure else f"{self._config.watched} {score:.4f}"
        progress.info("trial %d of %d  %s", done, total, result, extra={"fraction": done / total})

    def on_search_end(self) -> None:
        """Delete the state of the search; raise AllTrialsFailedError if no trial succeeded."""
        outcomes = self.outcomes()
        shutil.rmtree(self._folder, ignore_errors=True)
        if all(outcome["failure"] for outcome in outcomes):
            first = "; ".join(f"{each['values']}: {each['failure']}" for each in outcomes[:3])
            raise AllTrialsFailedError(
                f"at least one trial must succeed, but all {len(outcomes)} trials failed; change "
                f"`tuning.space`. First failures: {first}"
            )

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the finished trials in order: `values` by setting, `score`, and `failure`.

        If a trial failed, `score` is None and `failure` the reason; otherwise `failure` is empty.
        """
        found = []
        for trial in map(self.oracle.trials.get, self.oracle.end_order):
            failure = ""
            if trial.status != trial_module.TrialStatus.COMPLETED:
                # KerasTuner keeps the stack trace, which ends with the error of `run_trial`.
                message = (trial.message or "it failed").strip()
                failure = message.rpartition("FailedTrialError: ")[2]
            found.append(
                {
                    "values": chosen_values(trial.hyperparameters.values, self._config.tuning),
                    "score": None if failure else float(trial.score),
                    "failure": failure,
                }
            )
        return found

    def _score(self, values: dict[str, Any]) -> float:
        configured, tuning = self._config, self._config.tuning
        trainer = configured.model_copy(update=apply(chosen_values(values, tuning), configured))
        if self._of_ranker is not None and trainer.ranking is not None:
            epochs = values.get(_EPOCHS_KEY, trainer.ranking.epochs)
            return self._of_ranker.score(trainer.ranking.model_copy(update={"epochs": epochs}))
        training = trainer.training.model_copy(
            update={
                "validation_fraction": tuning.holdout_fraction,
                "checkpoint_every_s": _NEVER_S,
                # Trials run one after the other, each on one device.
                "strategy": "none",
                "epochs": values.get(_EPOCHS_KEY, trainer.training.epochs),
            }
        )
        # As in the final training: without validation timelines, it keeps the last epoch.
        keep_best = configured.training.validation_fraction != 0
        if not keep_best:
            training = training.model_copy(update={"early_stopping_patience": 0})
        tf_keras.utils.set_random_seed(training.seed)
        trainer = trainer.model_copy(update={"training": training})
        # All trials are measured with the same queries, even if their objectives differ.
        objective = configured.training.objective
        timelines = make_timelines(
            trainer, self._train_files, holds_out_newest=objective == "next_candidate"
        )
        model = make_model(trainer, self._transform, self._candidate_files, timelines.num_timelines)
        folder = self._folder / "fit"
        measure = partial(
            holdout_metric,
            configured.watched,
            model,
            timelines.validation(),
            objective,
            exclude_seen=configured.exclude_seen,
            seed=tuning.seed,
        )
        log_dir = str(folder / "log")
        state = fit(
            model, timelines, training, folder, log_dir, measure=measure, keep_best=keep_best
        )
        state.discard()
        return measure()


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Return the tuner; `custom_config[TRAINER_KEY]` contains the fields of a `TrainerConfig`."""
    config = TrainerConfig.model_validate(fn_args.custom_config[TRAINER_KEY])
    tf.config.experimental.enable_op_determinism()
    return TunerFnResult(TimelineTuner(config, fn_args), fit_kwargs={})


def make_oracle(config: TrainerConfig) -> keras_tuner.Oracle:
    """Return the configured KerasTuner oracle, which chooses the trials."""
    tuning = config.tuning
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(config.watched, "max"),
        "hyperparameters": hyperparameters(tuning),
        # KerasTuner treats 0 as no seed.
        "seed": tuning.seed + 1,
        "allow_new_entries": False,
        "tune_new_entries": False,
        # If all trials fail, `on_search_end` reports the reasons.
        "max_consecutive_failed_trials": tuning.max_trials + 1,
    }
    if tuning.algorithm == "hyperband":
        searched = config.ranking if searches_ranker(tuning) else config.training
        oracle = HyperbandOracle(max_epochs=(searched or config.training).epochs, **common)
        oracle.max_trials = tuning.max_trials
        return oracle
    if tuning.algorithm == "bayesian":
        return BayesianOptimizationOracle(max_trials=tuning.max_trials, **common)
    return RandomSearchOracle(max_trials=tuning.max_trials, **common)


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
