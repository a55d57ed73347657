"""What became of each run, kept in ML Metadata beside what TFX writes there.

TFX keeps executions and artifacts. A run of ours also has a context of its own type, made before
anything slow is imported and closed when the run ends, so that a run which was killed, or which
never came to its first component, is known too.
"""

import json
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2

from pipeline.runs.state import InputState

_Execution = metadata_store_pb2.Execution
_TYPE = "two_tower_run"
# TFX's own: one for each pipeline; below it one for each run, by the run's id, which several
# pipelines in one database may share; and one for each component, `PIPELINE.COMPONENT`.
PIPELINE_TYPE = "pipeline"
RUN_TYPE = "pipeline_run"
NODE_TYPE = "node"
# The component that a whole run ends with, and the one that only an index refresh begins with.
_LAST_COMPONENT = "Pusher"
_REFRESH_COMPONENT = "BlessedModel"
# Between two tasks of another orchestrator nothing in ML Metadata tells a run that goes on from one
# that died.
_SILENCE_S = 24 * 3600.0
DONE_STATES = frozenset({_Execution.COMPLETE, _Execution.CACHED})
_FAILED_STATES = frozenset({_Execution.FAILED, _Execution.CANCELED})
_PROPERTIES = {
    "config": metadata_store_pb2.STRING,
    "run_id": metadata_store_pb2.STRING,
    "command": metadata_store_pb2.STRING,
    "state": metadata_store_pb2.STRING,
    "started_s": metadata_store_pb2.DOUBLE,
    "ended_s": metadata_store_pb2.DOUBLE,
    "span": metadata_store_pb2.STRING,
    "catalogue": metadata_store_pb2.STRING,
    "files": metadata_store_pb2.STRING,
    "settings": metadata_store_pb2.STRING,
    "problem": metadata_store_pb2.STRING,
    "summary": metadata_store_pb2.STRING,
    "host": metadata_store_pb2.STRING,
}

RunState = Literal["running", "complete", "refused", "failed", "killed"]


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        config: Name of the configuration.
        run_id: In ML Metadata.
        command: `run` or `index`.
        state: `complete`: what it made is served; `refused`: by a gate; `killed`: its process
            ended without a word. Of another orchestrator's run: `complete` once its Pusher is,
            `killed` after a day without a change.
        started_s: Since 1970.
        ended_s: 0 while it runs, and where it was killed.
        span: Newest span that it read; empty without spans.
        catalogue: See `InputState`.
        files: See `InputState`.
        settings: See `InputState`.
        problem: What it ended with; empty where all went well.
        summary: As `two-tower run --json` prints it; empty where it came to nothing.
        host: Name of the machine; empty for another orchestrator's run.
    """

    config: str
    run_id: str
    command: str = "run"
    state: RunState = "running"
    started_s: float = 0.0
    ended_s: float = 0.0
    span: str = ""
    catalogue: str = ""
    files: str = ""
    settings: str = ""
    problem: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    host: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data, without what only later runs compare."""
        return {
            "config": self.config,
            "run_id": self.run_id,
            "command": self.command,
            "state": self.state,
            "started_s": self.started_s,
            "ended_s": self.ended_s,
            "span": self.span,
            "problem": self.problem,
            "host": self.host,
            **{
                name: self.summary.get(name)
                for name in ("metrics", "gates", "blessed", "pushed_version", "newly_pushed")
            },
        }


class RunHistory:
    """The runs of one configuration.

    Args:
        store: ML Metadata.
        config: Name of the configuration.
    """

    def __init__(self, store: MetadataStore, config: str) -> None:
        self._store = store
        self._config = config

    def begin(self, run_id: str, command: str, inputs: InputState | None) -> RunRecord:
        """Notes that a run starts, and what it reads where that is known.

        The caller holds the run lock, so no other run is under way on this machine.
        """
        for record in self._begun_here():
            if record.state == "running" and _is_of_this_host(record):
                self._write(record, state="killed")
        record = RunRecord(
            self._config, run_id, command, started_s=time.time(), host=socket.gethostname()
        )
        if inputs is None:
            return self._write(record)
        return self._write(
            record,
            span=inputs.span,
            catalogue=inputs.catalogue,
            files=inputs.files,
            settings=inputs.settings,
        )

    def end(
        self, record: RunRecord, state: RunState, problem: str, summary: Mapping[str, Any]
    ) -> RunRecord:
        """Notes how a run ended."""
        return self._write(
            record, state=state, problem=problem, summary=summary, ended_s=time.time()
        )

    def records(self, *, under_way: bool = True) -> list[RunRecord]:
        """Returns all runs, oldest first.

        Args:
            under_way: Whether the run lock is held; where it is not, a run without an end was
                killed. Of another orchestrator's runs it says nothing: they hold the lock for one
                component at a time; nor of another machine's.
        """
        mine = {
            record.run_id: replace(record, state="killed")
            if record.state == "running" and self._was_killed(record, under_way)
            else record
            for record in self._begun_here()
        }
        others = [context for context in self._runs_of_pipeline() if context.name not in mine]
        if others:
            pipeline = executions_of(self._store, PIPELINE_TYPE, self._config)
            pushed, refreshing = (
                executions_of(self._store, NODE_TYPE, f"{self._config}.{component}").keys()
                for component in (_LAST_COMPONENT, _REFRESH_COMPONENT)
            )
            for context in others:
                found = self._store.get_executions_by_context(context.id)
                executions = [execution for execution in found if execution.id in pipeline]
                mine[context.name] = self._of_another_runner(
                    context, executions, pushed, refreshing
                )
        return _in_order(mine.values())

    def _was_killed(self, record: RunRecord, under_way: bool) -> bool:
        if _is_of_this_host(record):
            return not under_way
        # The lock of that machine cannot be seen from here.
        executions = executions_of(self._store, RUN_TYPE, record.run_id).values()
        changed_s = max((e.last_update_time_since_epoch for e in executions), default=0) / 1000
        return time.time() - max(changed_s, record.started_s) > _SILENCE_S

    def _begun_here(self) -> list[RunRecord]:
        """The runs that `begin` noted."""
        try:
            contexts = self._store.get_contexts_by_type(_TYPE)
        except errors.NotFoundError:
            return []
        records = [_read(context) for context in contexts]
        return [record for record in records if record.config == self._config]

    def _runs_of_pipeline(self) -> list[metadata_store_pb2.Context]:
        """TFX's contexts of this pipeline's runs; other uses may share the database."""
        pipeline = self._store.get_context_by_type_and_name(PIPELINE_TYPE, self._config)
        if pipeline is None:
            return []
        below = self._store.get_children_contexts_by_context(pipeline.id)
        return [context for context in below if context.type == RUN_TYPE]

    def _of_another_runner(
        self,
        context: metadata_store_pb2.Context,
        executions: Sequence[metadata_store_pb2.Execution],
        pushed: Collection[int],
        refreshing: Collection[int],
    ) -> RunRecord:
        """What TFX alone knows of a run that another orchestrator made.

        Args:
            context: Of the run.
            executions: Of this pipeline in it.
            pushed: The Pusher's executions, of all runs.
            refreshing: Executions that only an index refresh has, of all runs.
        """
        ordered = sorted(executions, key=lambda execution: execution.id)
        # A component that was tried again counts as its last try.
        states = {execution.type: execution.last_known_state for execution in ordered}
        created = context.create_time_since_epoch
        changed_s = max((e.last_update_time_since_epoch for e in ordered), default=created) / 1000
        state: RunState = "running"
        if any(e.id in pushed and e.last_known_state in DONE_STATES for e in ordered):
            state = "complete"
        elif _FAILED_STATES & set(states.values()):
            state = "failed"
        elif time.time() - changed_s > _SILENCE_S:
            state = "killed"
        return RunRecord(
            self._config,
            context.name,
            command="index" if any(e.id in refreshing for e in ordered) else "run",
            state=state,
            started_s=min((e.create_time_since_epoch for e in ordered), default=created) / 1000,
            ended_s=changed_s if state in ("complete", "failed") else 0.0,
        )

    def last_complete(self) -> RunRecord | None:
        """Returns the newest run of the whole pipeline that ended well and noted what it read.

        Other orchestrators' runs note nothing, so there is nothing to compare with, and none of
        theirs is looked at.
        """
        return self.since_last_complete()[0]

    def since_last_complete(self) -> "tuple[RunRecord | None, list[RunRecord]]":
        """Returns what `last_complete` does, and the index refreshes that ended well since."""
        last, refreshes = None, []
        for record in _in_order(self._begun_here()):
            if record.state != "complete":
                continue
            if record.command == "index":
                refreshes.append(record)
            elif record.files:
                last, refreshes = record, []
        return last, refreshes

    def _write(self, record: RunRecord, **changes: Any) -> RunRecord:
        record = replace(record, **changes)
        context_type = metadata_store_pb2.ContextType(name=_TYPE, properties=_PROPERTIES)
        type_id = self._store.put_context_type(context_type, can_add_fields=True)
        context = metadata_store_pb2.Context(
            type_id=type_id, name=f"{record.config}/{record.run_id}"
        )
        known = self._store.get_context_by_type_and_name(_TYPE, context.name)
        if known is not None:
            context.id = known.id
        for name, kind in _PROPERTIES.items():
            value = getattr(record, name)
            if kind == metadata_store_pb2.DOUBLE:
                context.properties[name].double_value = value
            else:
                text = value if isinstance(value, str) else json.dumps(value)
                context.properties[name].string_value = text
        self._store.put_contexts([context])
        return record


def _is_of_this_host(record: RunRecord) -> bool:
    # Earlier versions did not note the host.
    return record.host in ("", socket.gethostname())


def _in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Oldest first. Ids do not tell: each orchestrator has its own form of them."""
    return sorted(records, key=lambda record: (record.started_s, record.run_id))


def _read(context: metadata_store_pb2.Context) -> RunRecord:
    values: dict[str, Any] = {}
    for name, kind in _PROPERTIES.items():
        if name not in context.properties:
            continue
        value = context.properties[name]
        is_number = kind == metadata_store_pb2.DOUBLE
        values[name] = value.double_value if is_number else value.string_value
    values["summary"] = json.loads(values.get("summary") or "{}")
    return RunRecord(**values)


def executions_of(
    store: MetadataStore, context_type: str, name: str
) -> dict[int, metadata_store_pb2.Execution]:
    """Returns the executions of a context by id; none where there is no such context."""
    context = store.get_context_by_type_and_name(context_type, name)
    if context is None:
        return {}
    return {found.id: found for found in store.get_executions_by_context(context.id)}


def component_executions(store: MetadataStore, config: str, run_id: str) -> list[dict[str, Any]]:
    """Returns what TFX executed in a run, in order: component, state, seconds, outputs.

    Args:
        store: ML Metadata.
        config: Name of the configuration.
        run_id: Of the run.
    """
    pipeline = executions_of(store, PIPELINE_TYPE, config)
    found = executions_of(store, RUN_TYPE, run_id)
    executions = [execution for number, execution in sorted(found.items()) if number in pipeline]
    return [
        {
            "component": component_of(store, execution),
            "state": _Execution.State.Name(execution.last_known_state).lower(),
            "seconds": (execution.last_update_time_since_epoch - execution.create_time_since_epoch)
            / 1000,
            "outputs": _outputs(store, execution),
        }
        for execution in executions
    ]


def component_of(store: MetadataStore, execution: metadata_store_pb2.Execution) -> str:
    """Returns the name of the component that was executed."""
    for context in store.get_contexts_by_execution(execution.id):
        if context.type == NODE_TYPE:
            # `PIPELINE.COMPONENT`
            return str(context.name.rpartition(".")[2])
    return str(execution.type)


def _outputs(store: MetadataStore, execution: metadata_store_pb2.Execution) -> list[dict[str, Any]]:
    ids = [
        event.artifact_id
        for event in store.get_events_by_execution_ids([execution.id])
        if event.type == metadata_store_pb2.Event.OUTPUT
    ]
    return [
        {
            "type": artifact.type,
            "uri": artifact.uri,
            "state": metadata_store_pb2.Artifact.State.Name(artifact.state).lower(),
        }
        for artifact in store.get_artifacts_by_id(ids)
    ]
