"""The `run_fn` of TFX's Trainer: trains the two towers and exports them."""

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

from models.config import LOSS, HoldoutMetric, ModelConfig, TrainingConfig, TuningConfig
from models.features.spec import FeatureSpec
from models.features.vocabularies import FeatureSizes, candidate_counts, read_vocabularies
from models.input.timeline_dataset import TimelineDataset
from models.input.transformed_features import CandidateTable
from models.missing_model import is_missing_model
from models.settings import Settings
from models.towers.export import export_towers
from models.training.checkpoints_and_early_stopping import FitState, progress
from models.training.distribution import (
    distribute,
    fit_as_chief,
    is_chief,
    make_strategy,
    read_task,
)
from models.training.holdout_ranks import holdout_ranks
from models.training.optimizers import make_optimizer
from models.training.two_tower_model import TwoTowerModel
from models.training.warm_start import SavedWeights, WarmStart, restore
from models.tuning.search_space import apply, chosen_values

TRAINER_KEY = "trainer"
# Files in the log folder: the report of the warm start, and the time and CPU time of training
# (after a restart, only of the part since then).
WARM_START_FILE = "warm_start.json"
FIT_FILE = "fit.json"


class TrainerConfig(Settings):
    """Configuration of `run_fn`, whose fields are in `custom_config[TRAINER_KEY]`.

    Attributes:
        watched: Metric for early stopping.
        exclude_seen: Whether the ranks for this metric exclude the history's candidates.
    """

    spec: FeatureSpec
    model: ModelConfig
    training: TrainingConfig
    checkpoint_dir: str
    code_hash: str
    watched: str = LOSS
    exclude_seen: bool = True
    tuning: TuningConfig = TuningConfig()


def run_fn(fn_args: FnArgs) -> None:
    """Train the towers and export them.

    Args:
        fn_args: `train_files` are the transformed timelines and `eval_files` the transformed
            catalogue. `custom_config[TRAINER_KEY]` contains the fields of a `TrainerConfig`,
            `base_model` is the model for a warm start, if any, and `hyperparameters` are the best
            values of a search, if any.

    Raises:
        WarmStartError: The base model does not fit the configuration.
    """
    config = _read_config(fn_args)
    if config.training.strategy == "multi_worker":
        fit_as_chief(fn_args, Path(config.checkpoint_dir))
    else:
        fit_and_export(fn_args)


def fit_and_export(fn_args: FnArgs) -> None:
    """Train in this process, with the arguments of `run_fn`; only the chief exports the towers."""
    config = _read_config(fn_args)
    # With deterministic kernels, the same seed gives the same model.
    tf.config.experimental.enable_op_determinism()
    tf_keras.utils.set_random_seed(config.training.seed)
    # TensorFlow can only connect to other workers before any other operation.
    strategy = make_strategy(config.training.strategy)
    transform = tft.TFTransformOutput(fn_args.transform_output)
    started, started_cpu = time.monotonic(), time.process_time()
    timelines = make_timelines(config, matching_files(fn_args.train_files))
    with strategy.scope():
        catalogue = matching_files(fn_args.eval_files)
        model = make_model(config, transform, catalogue, timelines.num_timelines)
    state = fit(
        model,
        timelines,
        config.training,
        _checkpoint_dir(config, fn_args),
        log_dir=fn_args.model_run_dir,
        initialize=_warm_start(config, transform, fn_args) if config.training.warm_start else None,
        measure=_validation_metric(config, model, timelines),
    )
    if config.training.strategy != "multi_worker" or is_chief():
        cost = {
            "seconds": round(time.monotonic() - started, 3),
            # The CPU time of all threads of this process, including reading and compilation.
            "cpu_seconds": round(time.process_time() - started_cpu, 3),
            "epochs": state.epochs_done,
            "timelines": timelines.num_timelines,
        }
        _write_json(os.path.join(fn_args.model_run_dir, FIT_FILE), cost)
        export_towers(
            model.query_tower,
            model.candidate_tower,
            config.model,
            config.spec,
            transform,
            fn_args.serving_model_dir,
        )
    state.discard()


def fit(
    model: TwoTowerModel,
    timelines: TimelineDataset,
    training: TrainingConfig,
    checkpoint_dir: Path,
    log_dir: str,
    initialize: Callable[[TwoTowerModel], None] | None = None,
    measure: Callable[[], float] | None = None,
    *,
    keep_best: bool = True,
) -> FitState:
    """Train `model` in place, from the checkpoint in `checkpoint_dir` if there is one.

    Args:
        model: Towers to train.
        timelines: Training data.
        training: Settings of the training.
        checkpoint_dir: Folder for checkpoints.
        log_dir: Folder for TensorBoard.
        initialize: Function that sets the initial weights of the built model.
        measure: Function that measures the quality after an epoch; see `FitState`.
        keep_best: Whether to restore the weights of the best epoch at the end.
    """
    strategy = model.distribute_strategy
    is_single_process = training.strategy != "multi_worker"
    if not is_single_process:
        checkpoint_dir /= "-".join(str(part) for part in read_task())
    state = FitState(
        checkpoint_dir,
        training.early_stopping_patience,
        # Several workers would have to save at the same time.
        training.checkpoint_every_s if is_single_process else math.inf,
        training.epochs,
        measure,
    )
    with strategy.scope():
        model.compile(
            optimizer=make_optimizer(training, training.epochs * timelines.steps_per_epoch)
        )
        # Variables and optimizer slots must exist before a checkpoint can be restored into them.
        model.compute_loss(next(iter(timelines.epochs(0, 1))), training=False)
        if initialize is not None:
            initialize(model)
        model.optimizer.build(model.trainable_variables)
    first = state.resume(model)
    if first < training.epochs and not state.stopped_early:
        callbacks: list[tf_keras.callbacks.Callback] = [state]
        if is_single_process or is_chief():
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
    """Return the dataset of the transformed timelines in `files`."""
    training = config.training
    return TimelineDataset(
        files,
        config.spec,
        training.batch_size,
        training.validation_fraction,
        training.seed,
        bucket_by_length=training.objective == "next_candidate"
        and config.model.trains_on_padded_histories,
        event_weights=training.event_weights,
    )


def make_model(
    config: TrainerConfig,
    transform: tft.TFTransformOutput,
    candidate_files: list[str],
    num_timelines: int,
) -> TwoTowerModel:
    """Return the configured model with random initial weights."""
    sizes = FeatureSizes.from_transform(
        transform, config.spec, query_vocabulary=config.model.query_id_embedding
    )
    return TwoTowerModel(
        config.spec,
        sizes,
        config.model,
        config.training,
        CandidateTable.read(candidate_files, config.spec, sizes.candidates - 1),
        candidate_counts(transform, config.spec),
        num_timelines,
    )


def _validation_metric(
    config: TrainerConfig, model: TwoTowerModel, timelines: TimelineDataset
) -> Callable[[], float] | None:
    """Return a function that measures `config.watched`, or None for the validation loss."""
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
        return metric.mean(ranks)

    return measure


def _read_config(fn_args: FnArgs) -> TrainerConfig:
    """Return the configuration, with the best values of a search if there was one."""
    config = TrainerConfig.model_validate(fn_args.custom_config[TRAINER_KEY])
    if not fn_args.hyperparameters:
        return config
    values = chosen_values(fn_args.hyperparameters["values"], config.tuning)
    model, training = apply(values, config.model, config.training)
    return config.model_copy(update={"model": model, "training": training})


def _warm_start(
    config: TrainerConfig, transform: tft.TFTransformOutput, fn_args: FnArgs
) -> Callable[[TwoTowerModel], None]:
    """Return a function that restores the base model's weights and writes a report."""
    # Read now, so that an unusable base model raises an error before the model is built.
    has_base = fn_args.base_model and not is_missing_model(fn_args.base_model)
    saved = SavedWeights.read(fn_args.base_model, config.spec) if has_base else None

    def initialize(model: TwoTowerModel) -> None:
        if saved is None:
            report = WarmStart(None)
            progress.info("no blessed model of earlier data; training from random weights")
        else:
            report = restore(model, saved, config.spec, read_vocabularies(transform, config.spec))
            rows = report.vocabularies[config.spec.candidate_id]
            progress.info(
                "warm start from %s: %d known, %d new and %d removed candidates",
                report.source,
                rows.kept,
                rows.new,
                rows.gone,
            )
        _write_json(os.path.join(fn_args.model_run_dir, WARM_START_FILE), report.to_json())

    return initialize


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(content, indent=2))


def _checkpoint_dir(config: TrainerConfig, fn_args: FnArgs) -> Path:
    """Return a folder for checkpoints that is the same for all runs with the same inputs."""
    inputs = [
        config.model_dump_json(),
        fn_args.transform_output,
        *fn_args.train_files,
        fn_args.base_model or "",
    ]
    return Path(config.checkpoint_dir) / hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]


def matching_files(patterns: list[str]) -> list[str]:
    """Return the files that match TFX's patterns, sorted.

    Raises:
        FileNotFoundError: No file matches.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no transformed Examples match {[os.fspath(p) for p in patterns]}")
    return files
