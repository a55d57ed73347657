"""DriftGate: holds a new span against the last good one before anything learns from it."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel

from components.drift_gate.executor import Executor
from components.drift_gate.spec import (
    CONFIG_KEY,
    EXAMPLES_KEY,
    PROFILE_KEY,
    DriftGateConfig,
    DriftGateSpec,
    SpanProfile,
)


class DriftGate(base_component.BaseComponent):
    """Profiles the newest span and compares it with an earlier profile.

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
        profile: SpanProfile, the baseline of spans to come; none where the gate stopped the run.
    """

    SPEC_CLASS = DriftGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, examples: channel.BaseChannel, config: DriftGateConfig) -> None:
        super().__init__(
            DriftGateSpec(
                **{
                    EXAMPLES_KEY: examples,
                    PROFILE_KEY: channel.Channel(type=SpanProfile),
                    CONFIG_KEY: config.model_dump_json(),
                }
            )
        )
