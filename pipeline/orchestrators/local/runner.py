"""Runs the pipeline on this machine, one component after the other, and tells what happens.

TFX's own local runner returns normally when a component's inputs cannot be resolved and the
component never ran. This one holds every component's state in ML Metadata against what a run
promises, and reports to an observer as it goes.
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

from pipeline.runs.postgresql_store import adapted

_STATES = {
    metadata_store_pb2.Execution.COMPLETE: "complete",
    metadata_store_pb2.Execution.CACHED: "cached",
}


class ComponentFailedError(Exception):
    """A component failed; its cause is `__cause__` where the component raised one.

    Attributes:
        component: Name of the component.
        reason: What it said.
    """

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"{component}: {reason}")
        self.component = component
        self.reason = reason


@dataclass(frozen=True)
class ComponentOutcome:
    """What one component did.

    Attributes:
        name: Of the component.
        state: `complete` or `cached`.
        seconds: Wall time.
        outputs: Artifacts by output key.
    """

    name: str
    state: str
    seconds: float
    outputs: dict[str, list[Artifact]]


class Handle(metadata.Metadata):  # type: ignore[misc]
    """TFX's way to ML Metadata, which takes on PostgreSQL too whatever TFX writes."""

    @property
    def store(self) -> Any:
        """ML Metadata; a RuntimeError outside of `with`."""
        return adapted(super().store, self._connection_config)


class Observer(Protocol):
    """Who is told how a run goes."""

    def component_started(self, name: str, position: int, total: int) -> None:
        """A component begins; `position` counts from 1."""

    def component_finished(self, outcome: ComponentOutcome) -> None:
        """A component has ended well."""


class ObservedLocalRunner(IrBasedRunner):
    """Runs a pipeline in this process.

    Args:
        run_id: Of this run, in ML Metadata.
        observer: Is told of each component.
        without_cache: Components that run even where the cache has their outputs.
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
        """Runs a compiled pipeline.

        Raises:
            ComponentFailedError: A component failed or could not be started; those after it did
                not run.
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


class UnknownComponentError(Exception):
    """A pipeline has no component of a name."""


def run_component(
    pipeline: Pipeline, name: str, run_id: str, without_cache: Collection[str] = ()
) -> ComponentOutcome:
    """Runs one component of a run whose earlier ones have been run.

    Args:
        pipeline: Of which it is one.
        name: Of the component.
        run_id: Of the run, in ML Metadata.
        without_cache: Components that run even where the cache has their outputs.

    Raises:
        UnknownComponentError: There is none of that name.
        ComponentFailedError: It failed, or could not be started; or one that it waits for, also
            one that gives it nothing but leave, has not ended well in this run.
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
    # A plan that was compiled for other settings may lack a component, or run it later.
    missing = _not_ended_well(compiled, nodes[name].upstream_nodes, run_id)
    if missing:
        raise ComponentFailedError(
            name,
            f"it waits for {', '.join(missing)}, which did not end well in run {run_id}; run that "
            "first, and compile the plan anew if it lacks it",
        )
    return _launch(compiled, nodes[name])


def _not_ended_well(
    pipeline: pipeline_pb2.Pipeline, names: Collection[str], run_id: str
) -> list[str]:
    """Returns those whose newest execution in a run is not complete, or that have none."""
    with Handle(_connection(pipeline)) as handle:
        store = handle.store
        run = store.get_context_by_type_and_name(constants.PIPELINE_RUN_CONTEXT_TYPE_NAME, run_id)
        ended: dict[str, bool] = {}
        executions = [] if run is None else store.get_executions_by_context(run.id)
        for execution in sorted(executions, key=lambda found: found.id):
            for context in store.get_contexts_by_execution(execution.id):
                if context.type == constants.NODE_CONTEXT_TYPE_NAME:
                    ended[context.name] = execution.last_known_state in _STATES
    use = pipeline.pipeline_info.id
    return [
        name for name in names if not ended.get(compiler_utils.node_context_name(use, name), False)
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
            mlmd_connection=Handle(connection),
            pipeline_info=pipeline.pipeline_info,
            pipeline_runtime_spec=pipeline.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
        ).launch()
    except Exception as error:
        # Whatever a component raises ends the run; the caller decides what to show of it.
        raise ComponentFailedError(name, str(error)) from error
    seconds = time.monotonic() - started
    if execution is None or not execution.execution_id:
        raise ComponentFailedError(name, "it was skipped: its inputs are missing")
    with Handle(connection) as store:
        [record] = store.store.get_executions_by_id([execution.execution_id])
        state = _STATES.get(record.last_known_state)
        if state is None:
            known = metadata_store_pb2.Execution.State.Name(record.last_known_state)
            raise ComponentFailedError(name, f"its inputs could not be resolved (state {known})")
        outputs = execution_lib.get_output_artifacts(store, execution.execution_id)
    return ComponentOutcome(name, state, seconds, outputs)
