"""DriftGate: holds a new span against the last good one before anything learns from it."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import channel

from components.drift_gate.executor import Executor
from components.drift_gate.spec import (
    CONFIG_KEY,
    DATA_DIRECTORY_KEY,
    EXAMPLES_KEY,
    PROFILE_KEY,
    DriftGateConfig,
    DriftGateSpec,
    SpanProfile,
)


class DriftGate(base_component.BaseComponent):
    """Profiles the spans that are new in a window and compares them with earlier ones.

    ExampleValidator's drift comparators would see whole windows, in which one day is diluted, and
    the events of a timeline rather than those of a span.

    ```python
    drift_gate = DriftGate(
        examples=example_gen.outputs["examples"],
        config=DriftGateConfig(
            use="clicks",
            ingest=ingest,
            drift=DriftConfig(action="stop"),
            baseline=uri,
            code_hash="",
        ),
    )
    transform.add_upstream_node(drift_gate)
    ```

    Outputs:
        profile: SpanProfile, what later spans are held against; none where a run was stopped.
    """

    SPEC_CLASS = DriftGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: channel.BaseChannel,
        config: DriftGateConfig,
        data_directory: str | RuntimeParameter | None = None,
    ) -> None:
        """Declares a gate.

        Args:
            examples: What was ingested; they know of which spans.
            config: The settings.
            data_directory: Where relative paths of the data start, if only a run can tell.
        """
        given = {} if data_directory is None else {DATA_DIRECTORY_KEY: data_directory}
        super().__init__(
            DriftGateSpec(
                **{
                    EXAMPLES_KEY: examples,
                    PROFILE_KEY: channel.Channel(type=SpanProfile),
                    CONFIG_KEY: config.model_dump_json(),
                },
                **given,
            )
        )
