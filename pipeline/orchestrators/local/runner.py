"""Local runner of a pipeline, which runs its components one after the other.

TFX's own local runner reports success even if a component did not run because its inputs could not
be resolved. This runner checks the state of each component in ML Metadata.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import Artifact

from pipeline.errors import ComponentFailedError, UnknownComponentError
from pipeline.runs.metadata import newest_execution

# TFX tests a message for truth instead of presence, so it warns about every input of a component.
logging.getLogger("absl").addFilter(
    lambda r: "property_predicate is not supported" not in str(r.msg)
)
_STATES = {
    metadata_store_pb2.Execution.COMPLETE: "complete",
    metadata_store_pb2.Execution.CACHED: "cached",
}
# Cache keys do not include the content of the serving directory. The Pusher itself checks whether
# the newest version already contains its model.
_NEVER_CACHED = frozenset({"Pusher"})


@dataclass(frozen=True)
class ComponentOutcome:
    """The result of a component that succeeded: it is `complete` or `cached`."""

    name: str
    state: str
    seconds: float
    outputs: dict[str, list[Artifact]]


def run_components(
    pipeline: Pipeline, run_id: str, started: Callable[[str, int, int], None]
) -> Iterator[ComponentOutcome]:
    """Run the components of a pipeline in order, and yield the outcome of each.

    Before each component, `started` is called with its name, its position from 1, and the number of
    components.

    Raises:
        ComponentFailedError: A component failed or could not start. Later ones do not run.
    """
    compiled, nodes = _compile(pipeline, run_id)
    for position, (name, node) in enumerate(nodes.items(), start=1):
        started(name, position, len(nodes))
        yield _launch(compiled, node)


def run_component(pipeline: Pipeline, name: str, run_id: str) -> ComponentOutcome:
    """Run one component; its upstream components must have succeeded in the same run.

    Raises:
        UnknownComponentError: The pipeline has no component with this name.
        ComponentFailedError: The component failed or could not start, or an upstream component,
            such as a gate, has not succeeded in this run.
    """
    compiled, nodes = _compile(pipeline, run_id)
    if name not in nodes:
        raise UnknownComponentError(f"there is no component {name!r}; known: {', '.join(nodes)}")
    # The plan of an orchestrator may lack a component if it was compiled with other settings.
    missing = _not_successful(compiled, nodes[name].upstream_nodes, run_id)
    if missing:
        raise ComponentFailedError(
            name,
            f"it needs {', '.join(missing)} to succeed first, but run {run_id} has no success of "
            "it. Run it first, or compile the orchestrator's plan again if it is not in the plan",
        )
    return _launch(compiled, nodes[name])


def _compile(
    pipeline: Pipeline, run_id: str
) -> tuple[pipeline_pb2.Pipeline, dict[str, pipeline_pb2.PipelineNode]]:
    compiled = compiler.Compiler().compile(pipeline)
    runtime_parameter_utils.substitute_runtime_parameter(
        compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
    )
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled.nodes}
    for name in _NEVER_CACHED & nodes.keys():
        nodes[name].execution_options.caching_options.enable_cache = False
    return compiled, nodes


def _not_successful(
    pipeline: pipeline_pb2.Pipeline, names: Iterable[str], run_id: str
) -> list[str]:
    """Return those of `names` whose newest execution in a run failed or does not exist."""
    with metadata.Metadata(_connection(pipeline)) as handle:
        found = {
            name: newest_execution(handle.store, pipeline.pipeline_info.id, name, run_id)
            for name in names
        }
    return [
        n for n, tried in found.items() if tried is None or tried.last_known_state not in _STATES
    ]


def _connection(pipeline: pipeline_pb2.Pipeline) -> Any:
    connection = runner_utils.extract_local_deployment_config(pipeline).metadata_connection_config
    return getattr(connection, connection.WhichOneof("connection_config"))


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
