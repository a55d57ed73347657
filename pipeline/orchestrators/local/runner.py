"""Local runner of a pipeline, which runs its components one after the other.

TFX's own local runner reports success even if a component did not run because its inputs could not
be resolved. This runner checks the state of each component in ML Metadata. It also notifies an
observer.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, compiler_utils, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.orchestration.portable.tfx_runner import IrBasedRunner
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import Artifact

from pipeline.errors import ComponentFailedError, UnknownComponentError

_STATES = {
    metadata_store_pb2.Execution.COMPLETE: "complete",
    metadata_store_pb2.Execution.CACHED: "cached",
}


@dataclass(frozen=True)
class ComponentOutcome:
    """The result of a component that succeeded.

    Attributes:
        name: Name of the component.
        state: `complete` or `cached`.
        seconds: Wall time in seconds.
        outputs: Output artifacts by key.
    """

    name: str
    state: str
    seconds: float
    outputs: dict[str, list[Artifact]]


class Observer(Protocol):
    """Callbacks that report the progress of a run."""

    def component_started(self, name: str, position: int, total: int) -> None:
        """Handle the start of the component at `position`, which counts from 1."""

    def component_finished(self, outcome: ComponentOutcome) -> None:
        """Handle the success of a component."""


class ObservedLocalRunner(IrBasedRunner):
    """TFX runner that runs a pipeline in this process.

    Args:
        run_id: ID of the run in ML Metadata.
        observer: Object that is notified when a component starts and when it has succeeded.
        without_cache: Names of components that never use cached outputs.

    Attributes:
        outcomes: Outcomes of the components that have succeeded, by name.
    """

    def __init__(
        self, run_id: str, observer: Observer, without_cache: frozenset[str] = frozenset()
    ) -> None:
        self._run_id = run_id
        self._observer = observer
        self._without_cache = without_cache
        self.outcomes: dict[str, ComponentOutcome] = {}

    def run_with_ir(
        self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None
    ) -> None:
        """Run a compiled pipeline.

        Raises:
            ComponentFailedError: A component failed or could not start. Later ones do not run.
        """
        if run_options is not None:
            raise ValueError("partial runs are not supported; the cache skips what is unchanged")
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self._run_id}
        )
        for position, node in enumerate(pipeline.nodes, start=1):
            name = node.pipeline_node.node_info.id
            self._observer.component_started(name, position, len(pipeline.nodes))
            if name in self._without_cache:
                node.pipeline_node.execution_options.caching_options.enable_cache = False
            outcome = _launch(pipeline, node.pipeline_node)
            self.outcomes[name] = outcome
            self._observer.component_finished(outcome)


def run_component(
    pipeline: Pipeline, name: str, run_id: str, without_cache: Collection[str] = ()
) -> ComponentOutcome:
    """Run one component; its upstream components must have succeeded in the same run.

    Args:
        pipeline: The pipeline that contains the component.
        name: Name of the component.
        run_id: ID of the run in ML Metadata.
        without_cache: Names of components that never use cached outputs.

    Raises:
        UnknownComponentError: The pipeline has no component with this name.
        ComponentFailedError: The component failed or could not start, or an upstream component,
            such as a gate, has not succeeded in this run.
    """
    compiled = compiler.Compiler().compile(pipeline)
    runtime_parameter_utils.substitute_runtime_parameter(
        compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
    )
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled.nodes}
    if name not in nodes:
        raise UnknownComponentError(f"there is no component {name!r}; known: {', '.join(nodes)}")
    if name in without_cache:
        nodes[name].execution_options.caching_options.enable_cache = False
    # The plan of an orchestrator may lack a component if it was compiled with other settings.
    missing = _not_successful(compiled, nodes[name].upstream_nodes, run_id)
    if missing:
        raise ComponentFailedError(
            name,
            f"it needs {', '.join(missing)} to succeed first, but run {run_id} has no success of "
            "it. Run it first, or compile the orchestrator's plan again if it is not in the plan",
        )
    return _launch(compiled, nodes[name])


def _not_successful(
    pipeline: pipeline_pb2.Pipeline, names: Collection[str], run_id: str
) -> list[str]:
    """Return those of `names` whose newest execution in a run failed or does not exist."""
    with metadata.Metadata(_connection(pipeline)) as handle:
        store = handle.store
        run = store.get_context_by_type_and_name(constants.PIPELINE_RUN_CONTEXT_TYPE_NAME, run_id)
        succeeded: dict[str, bool] = {}
        executions = [] if run is None else store.get_executions_by_context(run.id)
        for execution in sorted(executions, key=lambda found: found.id):
            for context in store.get_contexts_by_execution(execution.id):
                if context.type == constants.NODE_CONTEXT_TYPE_NAME:
                    succeeded[context.name] = execution.last_known_state in _STATES
    project = pipeline.pipeline_info.id
    return [
        name
        for name in names
        if not succeeded.get(compiler_utils.node_context_name(project, name), False)
    ]


def _connection(pipeline: pipeline_pb2.Pipeline) -> Any:
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    kind = deployment.metadata_connection_config.WhichOneof("connection_config")
    return getattr(deployment.metadata_connection_config, kind)


def _launch(pipeline: pipeline_pb2.Pipeline, node: pipeline_pb2.PipelineNode) -> ComponentOutcome:
    name = node.node_info.id
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    connection = _connection(pipeline)
    started = time.monotonic()
    try:
        execution = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=metadata.Metadata(connection),
            pipeline_info=pipeline.pipeline_info,
            pipeline_runtime_spec=pipeline.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
        ).launch()
    except Exception as error:
        # A component can raise any exception, which ends the run. The caller reports it.
        raise ComponentFailedError(name, str(error)) from error
    seconds = time.monotonic() - started
    if execution is None or not execution.execution_id:
        raise ComponentFailedError(name, "it was skipped because its inputs are missing")
    with metadata.Metadata(connection) as handle:
        [record] = handle.store.get_executions_by_id([execution.execution_id])
        state = _STATES.get(record.last_known_state)
        if state is None:
            known = metadata_store_pb2.Execution.State.Name(record.last_known_state)
            raise ComponentFailedError(name, f"its inputs could not be resolved (state {known})")
        outputs = execution_lib.get_output_artifacts(handle, execution.execution_id)
    return ComponentOutcome(name, state, seconds, outputs)
