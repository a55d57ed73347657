"""ModelFinder: an earlier blessed model, found without ML Metadata."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from components.model_finder.executor import (
    CURRENT_MODEL_KEY,
    EXAMPLES_KEY,
    FITTED_EXAMPLES_KEY,
    MODEL_KEY,
    RECORDS_KEY,
    Executor,
)


class ModelFinderSpec(component_spec.ComponentSpec):
    """What ModelFinder takes and gives."""

    PARAMETERS = {RECORDS_KEY: component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        CURRENT_MODEL_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Model, optional=True
        ),
        FITTED_EXAMPLES_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Examples, optional=True
        ),
        EXAMPLES_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Examples, optional=True
        ),
    }
    OUTPUTS = {MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model)}


class ModelFinder(base_component.BaseComponent):
    """Finds the newest model with a record (`components.blessed_records`) and copies it.

    It takes the place of a Resolver where there is none, as on Kubeflow, and follows the same
    rules. The model to hold a new one against, which is never itself:

    ```python
    finder = ModelFinder(records, current_model=trainer.outputs["model"])
    ```

    The model to go on from, which was fitted on other Examples:

    ```python
    finder = ModelFinder(
        records,
        fitted_examples=transform.outputs["transformed_examples"],
        examples=example_gen.outputs["examples"],
    )
    ```

    Where `examples` have spans, only a model of earlier ones is taken, and never one that may have
    seen what is held out of them.

    Outputs:
        model: A Model; where there is none, one that says so (`models.missing_model`).
    """

    SPEC_CLASS = ModelFinderSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        records: str,
        current_model: channel.BaseChannel | None = None,
        fitted_examples: channel.BaseChannel | None = None,
        examples: channel.BaseChannel | None = None,
    ) -> None:
        """Declares a search in the folder `records`."""
        inputs = {
            CURRENT_MODEL_KEY: current_model,
            FITTED_EXAMPLES_KEY: fitted_examples,
            EXAMPLES_KEY: examples,
        }
        super().__init__(
            ModelFinderSpec(
                **{key: given for key, given in inputs.items() if given is not None},
                **{
                    RECORDS_KEY: records,
                    MODEL_KEY: channel.Channel(type=standard_artifacts.Model),
                },
            )
        )
