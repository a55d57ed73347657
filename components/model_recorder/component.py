"""ModelRecorder: a pushed model leaves a record for later runs."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from components.model_recorder.executor import (
    EXAMPLES_KEY,
    FITTED_EXAMPLES_KEY,
    MODEL_KEY,
    PUSHED_MODEL_KEY,
    RECORDS_KEY,
    Executor,
)


class ModelRecorderSpec(component_spec.ComponentSpec):
    """What ModelRecorder takes; it gives nothing."""

    PARAMETERS = {RECORDS_KEY: component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        FITTED_EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        PUSHED_MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS: dict[str, component_spec.ChannelParameter] = {}


class ModelRecorder(base_component.BaseComponent):
    """Writes the record that `ModelFinder` finds; the last step of a run on a cluster.

    ```python
    recorder = ModelRecorder(
        records,
        model=trainer.outputs["model"],
        fitted_examples=transform.outputs["transformed_examples"],
        examples=example_gen.outputs["examples"],
        pushed_model=pusher.outputs["pushed_model"],
    )
    ```
    """

    SPEC_CLASS = ModelRecorderSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        records: str,
        model: channel.BaseChannel,
        fitted_examples: channel.BaseChannel,
        examples: channel.BaseChannel,
        pushed_model: channel.BaseChannel,
    ) -> None:
        """Declares a record in the folder `records`."""
        super().__init__(
            ModelRecorderSpec(
                **{
                    RECORDS_KEY: records,
                    MODEL_KEY: model,
                    FITTED_EXAMPLES_KEY: fitted_examples,
                    EXAMPLES_KEY: examples,
                    PUSHED_MODEL_KEY: pushed_model,
                }
            )
        )
