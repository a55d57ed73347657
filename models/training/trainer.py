"""The `run_fn` of TFX's Trainer: trains the two towers and exports them."""

import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs

from models.config import LOSS, ModelConfig, TrainingConfig, TuningConfig
from models.features.spec import EventWeights, FeatureSpec
from models.features.vocabularies import FeatureSizes, candidate_counts, read_vocabularies
from models.input.hold_back import HoldBack, SplitMethod
from models.input.timeline_dataset import TimelineDataset
from models.input.transformed_features import (
    listed_candidates,
    read_availability,
    read_candidate_features,
)
from models.missing_model import is_missing_model
from models.ranking.config import RankingConfig
from models.settings import Settings
from models.towers.export import export_towers
from models.training.checkpoints_and_early_stopping import FitState, progress
from models.training.distribution import distribute, fit_as_chief, make_strategy, read_task
from models.training.holdout_ranks import holdout_metric
from models.training.optimizers import make_optimizer
from models.training.svd_start import start_from_svd
from models.training.two_tower_model import TwoTowerModel
from models.training.warm_start import SavedWeights, restore
from models.tuning.search_space import apply, chosen_values

if TYPE_CHECKING:  # without a ranker, the imports would only take time
    from models.ranking.held_back_events import HeldBackEvents
    from models.ranking.ranker import Ranker
    from models.ranking.saved_stage import StageSettings

TRAINER_KEY = "trainer"
# Files in the log folder: the report of the warm start, and the time and CPU time of training
# (after a restart, only of the part since then).
WARM_START_FILE = "warm_start.json"
FIT_FILE = "fit.json"


class TrainerConfig(Settings):
    """Configuration of `run_fn` and `tuner_fn`, with its fields in `custom_config[TRAINER_KEY]`.

    `watched` is the metric for early stopping or, in a search, for the choice of the best trial.
    With `exclude_seen`, the ranks for this metric exclude the history's candidates. With
    `only_listed`, the catalogue has only candidates that were in its file.
    """

    spec: FeatureSpec
    model: ModelConfig
    training: TrainingConfig
    weights: EventWeights = EventWeights()
    checkpoint_dir: str
    code_hash: str
    watched: str = LOSS
    exclude_seen: bool = True
    tuning: TuningConfig = TuningConfig()
    ranking: RankingConfig | None = None
    split: SplitMethod = "temporal"
    only_listed: bool = False


def run_fn(fn_args: FnArgs) -> None:
    """Train the towers and export them.

    `train_files` are the transformed timelines and `eval_files` the transformed catalogue.
    `base_model` is the model for a warm start, if any, and `hyperparameters` are the best values of
    a search, if any.

    Raises:
        WarmStartError: The base model does not fit the configuration.
    """
    config = _read_config(fn_args)
    if config.training.strategy == "multi_worker":
        arguments = {**vars(fn_args), "data_accessor": None}
        fit_as_chief(arguments, Path(config.checkpoint_dir))
    else:
        fit_and_export(fn_args)


def fit_and_export(fn_args: FnArgs) -> None:
    """Train in this process, with the arguments of `run_fn`; only the chief exports the towers."""
    config = _read_config(fn_args)
    # With deterministic kernels, the same seed gives the same model.
    tf.config.experimental.enable_op_determinism()
    # TensorFlow can only connect to other workers before any other operation.
    strategy = make_strategy(config.training.strategy)
    transform = tft.TFTransformOutput(fn_args.transform_output)
    started, started_cpu = time.monotonic(), time.process_time()
    trained, states = None, []
    if config.ranking is not None:
        # Imported on demand: without a ranker, it would only take time.
        from models.ranking.training import train_ranking_stage

        model, events, selectable, state, timelines = fit_without_held_back(
            config, config.ranking, fn_args, transform, strategy
        )
        states.append(state)
        trained = train_ranking_stage(
            model,
            events,
            selectable,
            config.ranking,
            exclude_seen=config.exclude_seen,
            seed=config.training.seed,
            initialize=_ranker_start(config, fn_args),
        )
        if config.ranking.refit_retriever:
            state.release()
            del model, events, selectable
            gc.collect()
    if config.ranking is None or config.ranking.refit_retriever:
        model, state, timelines = _fit_towers(config, fn_args, transform, strategy)
        states.append(state)
    if config.training.strategy != "multi_worker" or read_task().is_chief:
        towers = model.query_tower, model.candidate_tower
        ranked = trained is not None
        export_towers(*towers, transform, fn_args.serving_model_dir, ranked=ranked)
        if trained is not None:
            trained.save(fn_args.serving_model_dir)
            trained.save_report(fn_args.model_run_dir)
        cost = {
            "seconds": round(time.monotonic() - started, 3),
            # The CPU time of all threads of this process, including reading and compilation.
            "cpu_seconds": round(time.process_time() - started_cpu, 3),
            "epochs": states[-1].epochs_done,
            "stopped_early": states[-1].stopped_early,
            "watched": config.watched,
            "history": states[-1].history,
            "best_epoch": states[-1].best_epoch,
            "timelines": timelines.num_timelines,
            "warnings": timelines.warnings,
        }
        _write_json(os.path.join(fn_args.model_run_dir, FIT_FILE), cost)
    for state in states:
        state.discard()


def fit_without_held_back(
    config: TrainerConfig,
    ranking: RankingConfig,
    fn_args: FnArgs,
    transform: tft.TFTransformOutput,
    strategy: tf.distribute.Strategy,
) -> tuple[TwoTowerModel, "HeldBackEvents", npt.NDArray[np.bool_], FitState, TimelineDataset]:
    """Hold back the events that a ranker learns from, and train the towers without them.

    Returns:
        The model, the events, the candidates to rank `[num_candidates]`, the state of the training,
        and its timelines.
    """
    from models.ranking.held_back_events import HeldBackEvents

    spec, files = config.spec, matching_files(fn_args.train_files)
    events = HeldBackEvents.read(files, spec, ranking, config.split, config.weights)
    number = len(candidate_counts(transform, spec))
    counts = np.bincount(events.before.candidates, minlength=number)[:number]
    selectable = counts > 0
    if config.only_listed:
        selectable = listed_candidates(matching_files(fn_args.eval_files), spec, number)
    held_back = events.rule, counts
    model, state, timelines = _fit_towers(config, fn_args, transform, strategy, held_back)
    return model, events, selectable, state, timelines


def _fit_towers(
    config: TrainerConfig,
    fn_args: FnArgs,
    transform: tft.TFTransformOutput,
    strategy: tf.distribute.Strategy,
    held_back: tuple[HoldBack, npt.NDArray[np.int64]] | None = None,
) -> tuple[TwoTowerModel, FitState, TimelineDataset]:
    """Train the towers, without the events that are held back for the ranker, if any.

    `held_back` is the rule and the number of other events of each candidate.
    """
    # A served retriever does not depend on whether another one was trained before it.
    tf_keras.utils.set_random_seed(config.training.seed)
    if config.model.kind == "svd":
        # All timelines are used: there are no epochs to choose from, and no weights to start from.
        unused = {"validation_fraction": 0.0, "warm_start": False}
        training = config.training.model_copy(update=unused)
        config = config.model_copy(update={"training": training})
    hold_back, counts = held_back or (None, None)
    timelines = make_timelines(config, matching_files(fn_args.train_files), hold_back)
    with strategy.scope():
        catalogue = matching_files(fn_args.eval_files)
        model = make_model(config, transform, catalogue, timelines.num_timelines, counts)
    measure = None
    if config.watched != LOSS and timelines.validation_steps:
        measure = partial(
            holdout_metric,
            config.watched,
            model,
            timelines.validation(),
            config.training.objective,
            exclude_seen=config.exclude_seen,
            seed=config.training.seed,
        )
    # An earlier model may have seen the events that are held back.
    warm_start = config.training.warm_start and hold_back is None
    folder = checkpoint_folder(
        config,
        fn_args.transform_output,
        *fn_args.train_files,
        fn_args.base_model or "",
        *([] if hold_back is None else [repr(hold_back)]),
    )
    state = fit(
        model,
        timelines,
        config.training,
        folder,
        log_dir=os.path.join(fn_args.model_run_dir, *([] if hold_back is None else ["held_back"])),
        initialize=partial(_warm_start, config, fn_args) if warm_start else None,
        measure=measure,
    )
    return model, state, timelines


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

    A model of the kind `svd` has no epochs. `log_dir` is for TensorBoard. `initialize` sets the
    initial weights of the built model. `measure` is that of `FitState`. With `keep_best`, `model`
    ends with the weights of the best epoch.
    """
    if model.config.kind == "svd":
        training = training.model_copy(update={"epochs": 0, "start": "svd"})
    strategy = model.distribute_strategy
    task = read_task() if training.strategy == "multi_worker" else None
    if task is not None:
        checkpoint_dir /= f"{task.kind}-{task.number}"
    state = FitState(checkpoint_dir, training, measure)
    with strategy.scope():
        model.compile(optimizer=make_optimizer(training, timelines.steps_per_epoch))
        # Variables and optimizer slots must exist before a checkpoint can be restored into them.
        model.compute_loss(next(iter(timelines.epochs(0, 1))), training=False)
        if training.start == "svd":
            start_from_svd(model, timelines)
        if initialize is not None:
            initialize(model)
        model.optimizer.build(model.trainable_variables)
    first = state.resume(model)
    if first < training.epochs and not state.stopped_early:
        callbacks: list[tf_keras.callbacks.Callback] = [state]
        if task is None or task.is_chief:
            callbacks.append(tf_keras.callbacks.TensorBoard(log_dir, write_graph=False))
        model.fit(
            distribute(strategy, timelines.epochs(first, training.epochs)),
            steps_per_epoch=timelines.steps_per_epoch,
            initial_epoch=first,
            epochs=training.epochs,
            validation_data=distribute(strategy, timelines.validation()),
            validation_steps=timelines.validation_steps,
            callbacks=callbacks,
            verbose=0,
        )
    if keep_best:
        state.restore_best()
    return state


def make_timelines(
    config: TrainerConfig,
    files: list[str],
    hold_back: HoldBack | None = None,
    *,
    holds_out_newest: bool | None = None,
) -> TimelineDataset:
    """Return the dataset of the transformed timelines in `files`.

    `holds_out_newest` is that of `TimelineDataset`; by default, only with `next_candidate`.
    """
    training = config.training
    fraction = training.validation_fraction
    if fraction is None and training.strategy == "multi_worker":
        # Workers that round differently would not stop after the same epoch.
        fraction = 0.0
    return TimelineDataset(
        files,
        config.spec,
        training.batch_size,
        fraction,
        training.seed,
        weights=config.weights,
        hold_back=hold_back,
        holds_out_newest=training.objective == "next_candidate"
        if holds_out_newest is None
        else holds_out_newest,
    )


def make_model(
    config: TrainerConfig,
    transform: tft.TFTransformOutput,
    candidate_files: list[str],
    num_timelines: int,
    counts: npt.NDArray[np.int64] | None = None,
) -> TwoTowerModel:
    """Return the configured model with random initial weights.

    `counts` are the numbers of events of the candidates; by default, those in all training events.
    """
    sizes = FeatureSizes.from_transform(
        transform, config.spec, query_vocabulary=config.model.query_id_embedding
    )
    return TwoTowerModel(
        config.spec,
        sizes,
        config.model,
        config.training,
        read_candidate_features(candidate_files, config.spec, sizes.candidates - 1),
        candidate_counts(transform, config.spec) if counts is None else counts,
        num_timelines,
        read_availability(candidate_files, config.spec, sizes.candidates - 1),
    )


def _read_config(fn_args: FnArgs) -> TrainerConfig:
    """Return the configuration, with the best values of a search if there was one."""
    config = TrainerConfig.model_validate(fn_args.custom_config[TRAINER_KEY])
    if not fn_args.hyperparameters:
        return config
    values = chosen_values(fn_args.hyperparameters["values"], config.tuning)
    return config.model_copy(update=apply(values, config))


def _warm_start(config: TrainerConfig, fn_args: FnArgs, model: TwoTowerModel) -> None:
    """Restore the base model's weights, if there is one, and write a report."""
    report: dict[str, Any] = {"source": None, "vocabularies": {}}
    if not _has_base_model(fn_args):
        progress.info("no blessed model of earlier data; training from random weights")
    else:
        vocabularies = _vocabularies(config, fn_args)
        saved = SavedWeights.read(fn_args.base_model, config.spec)
        report = restore(model, saved, vocabularies)
        progress.info(
            "warm start from %(source)s: %(kept)d known, %(new)d new and %(gone)d removed "
            "candidates",
            {**report, **report["vocabularies"][config.spec.candidate_id]},
        )
    _write_json(os.path.join(fn_args.model_run_dir, WARM_START_FILE), report)


def _ranker_start(
    config: TrainerConfig, fn_args: FnArgs
) -> Callable[["Ranker", "StageSettings"], str | None] | None:
    """Return the function that restores the ranker of the base model; None without a warm start."""
    if not config.training.warm_start or not _has_base_model(fn_args):
        return None
    from models.ranking.warm_start import restore_ranker

    return partial(
        restore_ranker,
        directory=fn_args.base_model,
        spec=config.spec,
        vocabularies=_vocabularies(config, fn_args),
    )


def _has_base_model(fn_args: FnArgs) -> bool:
    return bool(fn_args.base_model) and not is_missing_model(fn_args.base_model)


def _vocabularies(config: TrainerConfig, fn_args: FnArgs) -> dict[str, Sequence[bytes]]:
    transform = tft.TFTransformOutput(fn_args.transform_output)
    return read_vocabularies(transform.transform_savedmodel_dir, config.spec)


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(content, indent=2))


def checkpoint_folder(config: TrainerConfig, *inputs: str) -> Path:
    """Return a folder for checkpoints that is the same for all runs with the same inputs."""
    content = "\n".join([config.model_dump_json(), *inputs])
    return Path(config.checkpoint_dir) / hashlib.sha256(content.encode()).hexdigest()[:16]


def matching_files(patterns: list[str]) -> list[str]:
    """Return the files that match TFX's patterns, sorted."""
    return sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
