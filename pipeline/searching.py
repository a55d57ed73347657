"""The component that searches settings."""

from tfx.components.transform.component import Transform
from tfx.components.tuner.component import Tuner
from tfx.dsl.components.base import executor_spec
from tfx.types.channel import BaseChannel

from components.trial_report.executor import Executor as TrialReportExecutor
from models.training.trainer import TrainerConfig
from models.tuning.tuner import TUNER_KEY, TunerConfig
from pipeline.code_hash import CODE_HASH_KEY, code_hash
from pipeline.config.project import PipelineConfig
from pipeline.fitting import EVAL_ARGS, TRAIN_ARGS


def make_tuner(
    config: PipelineConfig, trainer: TrainerConfig, transform: Transform, schema: BaseChannel
) -> Tuner:
    """Returns the search that the configuration asks for.

    Args:
        config: The use.
        trainer: What is varied.
        transform: Gives the transformed Examples.
        schema: Of the raw ones.
    """
    tuner_config = TunerConfig(
        trainer=trainer,
        metric=config.tuning_metric,
        exclude_seen=config.evaluation.exclude_seen,
    )
    tuner = Tuner(
        tuner_fn="models.tuning.tuner.tuner_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        train_args=TRAIN_ARGS,
        eval_args=EVAL_ARGS,
        custom_config={
            TUNER_KEY: tuner_config.model_dump_json(),
            CODE_HASH_KEY: code_hash("components/trial_report"),
        },
    )
    tuner.executor_spec = executor_spec.ExecutorClassSpec(TrialReportExecutor)
    return tuner
