"""Fits the two towers: the `run_fn` of TFX's Trainer."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs

from models.features.sizes import FeatureSizes, candidate_counts
from models.features.spec import FeatureSpec
from models.input.candidate_table import CandidateTable
from models.input.timeline_dataset import TimelineDataset
from models.missing_model import is_no_model
from models.settings import Settings
from models.towers.export import export_towers
from models.towers.history.choice import encoder_pads
from models.towers.two_tower import TwoTowerModel
from models.training.config import ModelConfig, TrainingConfig
from models.training.fit_state import FitState, progress
from models.training.holdout_metric import LOSS, HoldoutMetric
from models.training.holdout_ranks import holdout_ranks
from models.training.multi_worker import fit_as_chief
from models.training.optimizers import make_optimizer
from models.training.strategy import distribute, is_chief, make_strategy, require_cluster
from models.training.warm_start import SavedWeights, WarmStart, read_vocabularies, restore
from models.tuning.config import TuningConfig
from models.tuning.search_space import apply, chosen_values

TRAINER_KEY = "trainer"
# In the folder of the fit's logs: from which model the fit began, and what was taken over.
WARM_START_FILE = "warm_start.json"
# Beside it: what the fit cost. Of a resumed fit: its last part.
FIT_FILE = "fit.json"


class TrainerConfig(Settings):
    """The configuration of `run_fn`: `custom_config[TRAINER_KEY]` holds its fields."""

    spec: FeatureSpec
    model: ModelConfig
    training: TrainingConfig
    checkpoint_dir: str
    code_hash: str
    # What a fit is stopped by, and whether seen candidates count in it.
    watched: str = LOSS
    exclude_seen: bool = True
    tuning: TuningConfig = TuningConfig()


def run_fn(fn_args: FnArgs) -> None:
    """Fits the towers and exports them.

    Args:
        fn_args: `train_files` are the transformed timelines, `eval_files` the transformed
            catalogue; `custom_config[TRAINER_KEY]` holds the fields of a `TrainerConfig`.
            `base_model` is the model that a warm start continues, where there is one.
            `hyperparameters` are the best values of a search, where there was one.

    Raises:
        WarmStartError: The base model does not fit the configuration.
    """
    config = _config(fn_args)
    if config.training.strategy == "multi_worker":
        fit_as_chief(fn_args, Path(config.checkpoint_dir))
    else:
        fit_and_export(fn_args)


def fit_and_export(fn_args: FnArgs) -> None:
    """Fits the towers in this process; of several workers, the chief exports them.

    Args:
        fn_args: As of `run_fn`.
    """
    config = _config(fn_args)
    # Kernels that add in a fixed order: the same seed gives the same model.
    tf.config.experimental.enable_op_determinism()
    tf_keras.utils.set_random_seed(config.training.seed)
    # Before anything is computed: TensorFlow can meet other workers only then.
    strategy = make_strategy(config.training.strategy)
    transform = tft.TFTransformOutput(fn_args.transform_output)
    started, started_cpu = time.monotonic(), time.process_time()
    timelines = make_timelines(config, matching(fn_args.train_files))
    with strategy.scope():
        model = make_model(config, transform, matching(fn_args.eval_files), timelines.num_timelines)
    state = fit(
        model,
        timelines,
        config.training,
        _checkpoint_dir(config, fn_args),
        log_dir=fn_args.model_run_dir,
        begin=_warm_start(config, transform, fn_args) if config.training.warm_start else None,
        measure=_measure(config, model, timelines),
    )
    if config.training.strategy != "multi_worker" or is_chief():
        cost = {
            "seconds": round(time.monotonic() - started, 3),
            # Of all threads of this process; reading timelines and compiling are part of it.
            "cpu_seconds": round(time.process_time() - started_cpu, 3),
            "epochs": state.epochs_done,
            "timelines": timelines.num_timelines,
        }
        _write_json(os.path.join(fn_args.model_run_dir, FIT_FILE), cost)
        export_towers(model, config.spec, transform, fn_args.serving_model_dir)
    state.discard()


def fit(
    model: TwoTowerModel,
    timelines: TimelineDataset,
    training: TrainingConfig,
    checkpoint_dir: Path,
    log_dir: str,
    begin: Callable[[TwoTowerModel], None] | None = None,
    measure: Callable[[], float] | None = None,
    *,
    keep_best: bool = True,
) -> FitState:
    """Fits `model` in place, going on where a killed run with the same inputs stopped.

    Args:
        model: The towers.
        timelines: What to fit them on.
        training: How.
        checkpoint_dir: For what a killed run needs to go on.
        log_dir: For TensorBoard.
        begin: Sets other weights than random ones to begin with, in a model that is built.
        measure: How good the model is now, on what it is not fitted on: more is better. The
            validation loss decides where it is absent.
        keep_best: End with the weights of the best epoch, where one was measured.
    """
    strategy = model.distribute_strategy
    alone = training.strategy != "multi_worker"
    if not alone:
        checkpoint_dir /= "-".join(str(part) for part in require_cluster())
    state = FitState(
        checkpoint_dir,
        training.early_stopping_patience,
        # Workers would have to save in the same moment.
        training.checkpoint_every_s if alone else math.inf,
        training.epochs,
        measure,
    )
    with strategy.scope():
        model.compile(
            optimizer=make_optimizer(training, training.epochs * timelines.steps_per_epoch)
        )
        # Variables and optimiser slots must exist before a checkpoint can be restored into them.
        model.compute_loss(next(iter(timelines.epochs(0, 1))), training=False)
        if begin is not None:
            begin(model)
        model.optimizer.build(model.trainable_variables)
    first = state.resume(model)
    if first < training.epochs and not state.stopped_early:
        callbacks: list[tf_keras.callbacks.Callback] = [state]
        if alone or is_chief():
            callbacks.append(tf_keras.callbacks.TensorBoard(log_dir, write_graph=False))
        model.fit(
            distribute(strategy, lambda: timelines.epochs(first, training.epochs)),
            steps_per_epoch=timelines.steps_per_epoch,
            initial_epoch=first,
            epochs=training.epochs,
            validation_data=distribute(strategy, timelines.validation),
            validation_steps=timelines.validation_steps,
            callbacks=callbacks,
            verbose=0,
        )
    if keep_best:
        state.restore_best()
    return state


def make_timelines(config: TrainerConfig, files: list[str]) -> TimelineDataset:
    """Returns the transformed timelines as the configuration wants them batched."""
    training = config.training
    return TimelineDataset(
        files,
        config.spec,
        training.batch_size,
        training.validation_fraction,
        training.seed,
        alike_in_length=training.objective == "next_candidate" and encoder_pads(config.model),
        event_weights=training.event_weights,
    )


def make_model(
    config: TrainerConfig,
    transform: tft.TFTransformOutput,
    candidate_files: list[str],
    num_timelines: int,
) -> TwoTowerModel:
    """Returns the towers that the configuration describes, with random weights.

    Args:
        config: Features and settings.
        transform: What Transform left.
        candidate_files: The transformed catalogue.
        num_timelines: That are fitted on.
    """
    sizes = FeatureSizes.from_transform(
        transform, config.spec, query_vocabulary=config.model.query_id_embedding
    )
    table = CandidateTable.read(candidate_files, config.spec, sizes.candidates - 1)
    return TwoTowerModel(
        config.spec,
        sizes,
        config.model,
        config.training,
        table,
        candidate_counts(transform, config.spec),
        num_timelines,
    )


def _measure(
    config: TrainerConfig, model: TwoTowerModel, timelines: TimelineDataset
) -> Callable[[], float] | None:
    """Returns what the configuration watches, on the timelines kept out; None for the loss."""
    if config.watched == LOSS or not config.training.validation_fraction:
        return None
    metric = HoldoutMetric.parse(config.watched)

    def measure() -> float:
        ranks = holdout_ranks(
            model,
            timelines.validation() or (),
            config.spec,
            config.training.objective,
            exclude_seen=config.exclude_seen,
            seed=config.training.seed,
        )
        return metric.of(ranks)

    return measure


def _config(fn_args: FnArgs) -> TrainerConfig:
    """Returns the configuration, with the best values of a search in their places."""
    config = TrainerConfig.model_validate(fn_args.custom_config[TRAINER_KEY])
    if not fn_args.hyperparameters:
        return config
    values = chosen_values(fn_args.hyperparameters["values"], config.tuning)
    model, training = apply(values, config.model, config.training)
    return config.model_copy(update={"model": model, "training": training})


def _warm_start(
    config: TrainerConfig, transform: tft.TFTransformOutput, fn_args: FnArgs
) -> Callable[[TwoTowerModel], None]:
    """Returns what sets the weights of the base model, and leaves a report of it."""
    # Read before anything is fitted or built: a model that does not fit is said at once.
    has_base = fn_args.base_model and not is_no_model(fn_args.base_model)
    saved = SavedWeights.read(fn_args.base_model, config.spec) if has_base else None

    def begin(model: TwoTowerModel) -> None:
        if saved is None:
            begun = WarmStart(None)
            progress.info("no blessed model of earlier data: the fit begins from nothing")
        else:
            begun = restore(model, saved, config.spec, read_vocabularies(transform, config.spec))
            candidates = begun.vocabularies[config.spec.candidate_id]
            progress.info(
                "going on from %s: %d candidates known, %d new, %d gone",
                begun.source,
                candidates.kept,
                candidates.new,
                candidates.gone,
            )
        _write_json(os.path.join(fn_args.model_run_dir, WARM_START_FILE), begun.to_json())

    return begin


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(content, indent=2))


def _checkpoint_dir(config: TrainerConfig, fn_args: FnArgs) -> Path:
    """A folder that a second run finds again if, and only if, its inputs are the same."""
    inputs = [
        config.model_dump_json(),
        fn_args.transform_output,
        *fn_args.train_files,
        fn_args.base_model or "",
    ]
    return Path(config.checkpoint_dir) / hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]


def matching(patterns: list[str]) -> list[str]:
    """Returns the files of TFX's patterns, sorted.

    Raises:
        FileNotFoundError: There is none.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no transformed Examples match {[os.fspath(p) for p in patterns]}")
    return files
