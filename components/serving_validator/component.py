"""ServingValidator: asks a real model server real questions before a push."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, standard_artifacts

from components.serving_validator.executor import Executor
from components.serving_validator.spec import (
    BLESSING_KEY,
    CONFIG_KEY,
    EXAMPLES_KEY,
    MODEL_KEY,
    ServingValidatorConfig,
    ServingValidatorSpec,
)


class ServingValidator(base_component.BaseComponent):
    """Starts the model server on an export and holds its answers against the model.

    TFX's InfraValidator needs a container engine or a cluster for its server, and checks only
    that some answer comes.

    ```python
    validator = ServingValidator(
        examples=example_gen.outputs["examples"],
        model=index_builder.outputs["retrieval_model"],
        config=ServingValidatorConfig(
            spec=spec, serving=ServingConfig(), query_split="eval", code_hash=""
        ),
    )
    ```

    Outputs:
        blessing: An InfraBlessing that Pusher understands; `INFRA_NOT_BLESSED` lists what was
            wrong.
    """

    SPEC_CLASS = ServingValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: channel.BaseChannel,
        model: channel.BaseChannel,
        config: ServingValidatorConfig,
    ) -> None:
        channels = {
            EXAMPLES_KEY: examples,
            MODEL_KEY: model,
            BLESSING_KEY: channel.Channel(type=standard_artifacts.InfraBlessing),
        }
        super().__init__(ServingValidatorSpec(**channels, **{CONFIG_KEY: config.model_dump_json()}))
