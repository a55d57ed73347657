"""The components that fit models: Tuner, the node that finds a model to start from, and Trainer."""

from tfx.components.trainer.component import Trainer
from tfx.components.transform.component import Transform
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.base.base_node import BaseNode
from tfx.proto import trainer_pb2
from tfx.types.channel import BaseChannel

from components.stock.trainer import EPOCHS_KEY
from components.stock.trainer import Executor as RunTimeTrainerExecutor
from models.config import LOSS, TuningConfig
from models.training.trainer import TRAINER_KEY, TrainerConfig
from pipeline.code_hash import code_hash
from pipeline.config.project import PipelineConfig
from pipeline.orchestrators.target import Target

_RUN_FN = "models.training.trainer.run_fn"
_TRAIN_ARGS = trainer_pb2.TrainArgs(splits=["train"])
# The trainer looks up candidate features in the catalogue; see `models.training.trainer.run_fn`.
_EVAL_ARGS = trainer_pb2.EvalArgs(splits=["candidates"])


def fitting_components(
    config: PipelineConfig, target: Target, transform: Transform, schema: BaseChannel
) -> list[BaseNode]:
    """Return the components that the configuration asks for, in order; the last is Trainer."""
    trainer_config = TrainerConfig(
        spec=config.spec,
        model=config.model,
        training=config.training,
        weights=config.event_weights,
        checkpoint_dir=target.checkpoint_dir,
        # Only unchanged code continues an interrupted fit.
        code_hash=code_hash(_RUN_FN.rpartition(".")[0]),
        # Settings without effect must not invalidate the cache. Without a holdout, no metric is
        # watched; without a search, there is no search space.
        watched=LOSS if config.training.validation_fraction == 0 else config.watched_metric,
        exclude_seen=config.evaluation.exclude_seen
        or (config.training.validation_fraction == 0 and not config.ranking.enabled),
        tuning=config.tuning if config.tuning.enabled else TuningConfig(),
        ranking=config.ranking if config.ranking.enabled else None,
        split=config.split.method if config.ranking.enabled else "temporal",
        only_listed=config.ranking.enabled
        and config.candidates.only_listed
        and config.candidates.file is not None,
    )
    before: list[BaseNode] = []
    hyperparameters = base_model = None
    if config.tuning.enabled:
        tuner = _tuner(config, trainer_config, transform, schema)
        hyperparameters = tuner.outputs["best_hyperparameters"]
        before.append(tuner)
    if config.training.warm_start:
        previous = target.previous_model(
            transform.inputs["examples"], transform.outputs["transformed_examples"]
        )
        base_model = previous.outputs["model"]
        before.append(previous)
    trainer = Trainer(
        run_fn=_RUN_FN,
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        # These are inputs so that they are part of the cache key.
        base_model=base_model,
        hyperparameters=hyperparameters,
        train_args=_TRAIN_ARGS,
        eval_args=_EVAL_ARGS,
        custom_config={TRAINER_KEY: trainer_config.model_dump(mode="json")},
    )
    if target.epochs is not None:
        # Set afterwards, because the constructor of TFX's Trainer takes only declared parameters.
        trainer.exec_properties[EPOCHS_KEY] = target.epochs
        trainer.executor_spec = executor_spec.ExecutorClassSpec(RunTimeTrainerExecutor)
    return [*before, trainer]


def _tuner(
    config: PipelineConfig, trainer: TrainerConfig, transform: Transform, schema: BaseChannel
) -> BaseNode:
    # Imported on demand: KerasTuner imports Keras 3, which takes a sixth of a step's start.
    from tfx.components.tuner.component import Tuner

    from components.stock.tuner import Executor as TrialReportExecutor

    exclude_seen = config.evaluation.exclude_seen
    tuner_config = trainer.model_copy(
        update={"watched": config.tuning_metric, "exclude_seen": exclude_seen}
    )
    tuner = Tuner(
        tuner_fn="models.tuning.tuner.tuner_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        train_args=_TRAIN_ARGS,
        eval_args=_EVAL_ARGS,
        custom_config={TRAINER_KEY: tuner_config.model_dump(mode="json")},
    )
    tuner.executor_spec = executor_spec.ExecutorClassSpec(TrialReportExecutor)
    return tuner
