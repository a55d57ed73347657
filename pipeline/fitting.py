"""The components that fit: a search, an earlier model to go on from, the trainer."""

from tfx.components.trainer.component import Trainer
from tfx.components.transform.component import Transform
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.base.base_node import BaseNode
from tfx.proto import trainer_pb2
from tfx.types.channel import BaseChannel

from components.run_time_trainer.executor import EPOCHS_KEY
from components.run_time_trainer.executor import Executor as RunTimeTrainerExecutor
from models.training.holdout_metric import LOSS
from models.training.trainer import TRAINER_KEY, TrainerConfig
from models.tuning.config import TuningConfig
from pipeline.code_hash import code_hash
from pipeline.config.project import PipelineConfig
from pipeline.orchestrators.target import Site

TRAIN_ARGS = trainer_pb2.TrainArgs(splits=["train"])
# The trainer looks up candidate features in the catalogue; see `models.training.trainer.run_fn`.
EVAL_ARGS = trainer_pb2.EvalArgs(splits=["candidates"])


def fitting_components(
    config: PipelineConfig, site: Site, transform: Transform, schema: BaseChannel
) -> list[BaseNode]:
    """Returns what the configuration asks for, in order; the trainer is the last.

    Args:
        config: The use.
        site: Where they run.
        transform: Gives the transformed Examples.
        schema: Of the raw ones.
    """
    trainer_config = TrainerConfig(
        spec=config.spec,
        model=config.model,
        training=config.training,
        checkpoint_dir=site.checkpoint_dir,
        code_hash=code_hash("models"),
        # What nobody watches the cache must not know of.
        watched=config.watched_metric if config.training.validation_fraction else LOSS,
        exclude_seen=config.evaluation.exclude_seen or not config.training.validation_fraction,
        # Of a space that nobody searches the cache must not know.
        tuning=config.tuning if config.tuning.enabled else TuningConfig(),
    )
    before: list[BaseNode] = []
    hyperparameters = base_model = None
    if config.tuning.enabled:
        # Only here: it imports KerasTuner, and with it Keras 3, a sixth of the start of a step.
        from pipeline.searching import make_tuner

        tuner = make_tuner(config, trainer_config, transform, schema)
        hyperparameters = tuner.outputs["best_hyperparameters"]
        before.append(tuner)
    if config.training.warm_start:
        previous = site.previous_model(
            transform.inputs["examples"], transform.outputs["transformed_examples"]
        )
        base_model = previous.outputs["model"]
        before.append(previous)
    trainer = Trainer(
        run_fn="models.training.trainer.run_fn",
        transformed_examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        # Inputs, so that the cache sees what a fit began with.
        base_model=base_model,
        hyperparameters=hyperparameters,
        train_args=TRAIN_ARGS,
        eval_args=EVAL_ARGS,
        custom_config={TRAINER_KEY: trainer_config.model_dump_json()},
    )
    if site.epochs is not None:
        # TFX's Trainer declares no such parameter, and its constructor takes no other.
        trainer.exec_properties[EPOCHS_KEY] = site.epochs
        trainer.executor_spec = executor_spec.ExecutorClassSpec(RunTimeTrainerExecutor)
    return [*before, trainer]
