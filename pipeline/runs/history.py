"""The history of runs, kept in ML Metadata next to what TFX records there.

TFX records executions and artifacts. `two-tower run` and `two-tower index` also record each run as a
context of the type `two_tower_run`, which is created before anything slow is imported and completed
when the run ends. This way a run that was killed, or that never reached its first component, is
known too.
"""

import datetime
import json
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2

from components.interactions.spans.pattern import has_spans
from pipeline.config.project import PipelineConfig
from pipeline.runs.metadata import (
    NODE_TYPE,
    PIPELINE_TYPE,
    RUN_TYPE,
    executions_of,
    has_metadata,
    open_store,
)
from pipeline.runs.state import InputState

_Execution = metadata_store_pb2.Execution
_TYPE = "two_tower_run"
# The last component of a full run, and the component that only an index refresh has.
_LAST_COMPONENT = "Pusher"
_REFRESH_COMPONENT = "BlessedModel"
# Another orchestrator's run is idle between two tasks, and ML Metadata does not tell an idle run
# from a dead one. After this time without a change it counts as killed.
_SILENCE_S = 24 * 3600.0
DONE_STATES = frozenset({_Execution.COMPLETE, _Execution.CACHED})
_FAILED_STATES = frozenset({_Execution.FAILED, _Execution.CANCELED})
_NUMBERS = ("started_s", "ended_s")
# Properties that only later runs compare.
_INTERNAL = ("catalogue", "files", "settings", "summary")

RunState = Literal["running", "complete", "refused", "failed", "killed"]


def new_run_id() -> str:
    """Return an ID for a run, from the current UTC time; IDs sort by start time."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        config: Name of the configuration.
        run_id: ID of the run in ML Metadata.
        command: `run` or `index`.
        state: `complete`: the model is served; `refused`: a gate refused it; `killed`: the process
            ended without recording a result. A run of another orchestrator is `complete` once its
            Pusher is, and `killed` after a day without a change.
        started_s: Start time in seconds since 1970.
        ended_s: End time; 0 for a run that is running or was killed.
        span: Newest span that the run read; empty without spans.
        catalogue: See `InputState`.
        files: See `InputState`.
        settings: See `InputState`.
        problem: Why the run was refused or failed; else empty.
        summary: The summary that `two-tower run --json` prints; empty if there is none.
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
        """Return the record as plain data, without the hashes that only later runs compare."""
        results = ("metrics", "gates", "blessed", "pushed_version", "newly_pushed")
        return {
            **{name: value for name, value in self.__dict__.items() if name not in _INTERNAL},
            **{name: self.summary.get(name) for name in results},
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
        """Record that a run starts, and what it reads if that is known.

        The caller holds the run lock, so no other run of this machine is still running.
        """
        for record in self._recorded():
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
        """Record how a run ended."""
        return self._write(
            record, state=state, problem=problem, summary=summary, ended_s=time.time()
        )

    def records(self, *, is_locked: bool = True) -> list[RunRecord]:
        """Return all runs, oldest first.

        Args:
            is_locked: Whether the run lock of this machine is held. If it is not, an unfinished
                run of this machine was killed.
        """
        found = {
            record.run_id: replace(record, state="killed")
            if record.state == "running" and self._was_killed(record, is_locked)
            else record
            for record in self._recorded()
        }
        others = [context for context in self._runs_of_pipeline() if context.name not in found]
        if others:
            pipeline = executions_of(self._store, PIPELINE_TYPE, self._config)
            pushes, refreshes = (
                executions_of(self._store, NODE_TYPE, f"{self._config}.{component}").keys()
                for component in (_LAST_COMPONENT, _REFRESH_COMPONENT)
            )
            for context in others:
                executions = [
                    execution
                    for execution in self._store.get_executions_by_context(context.id)
                    if execution.id in pipeline
                ]
                found[context.name] = self._of_another_orchestrator(
                    context, executions, pushes, refreshes
                )
        return _in_order(found.values())

    def since_last_complete(self) -> tuple[RunRecord | None, list[RunRecord]]:
        """Return the newest complete full run, and the complete index refreshes since then.

        Only runs that recorded what they read count, so those of other orchestrators do not.
        """
        last, refreshes = None, []
        for record in _in_order(self._recorded()):
            if record.state != "complete":
                continue
            if record.command == "index":
                refreshes.append(record)
            elif record.files:
                last, refreshes = record, []
        return last, refreshes

    def _was_killed(self, record: RunRecord, is_locked: bool) -> bool:
        if _is_of_this_host(record):
            return not is_locked
        # The lock of another machine cannot be seen from here.
        executions = executions_of(self._store, RUN_TYPE, record.run_id).values()
        changed_s = max((e.last_update_time_since_epoch for e in executions), default=0) / 1000
        return time.time() - max(changed_s, record.started_s) > _SILENCE_S

    def _recorded(self) -> list[RunRecord]:
        try:
            contexts = self._store.get_contexts_by_type(_TYPE)
        except errors.NotFoundError:
            return []
        records = [_read(context) for context in contexts]
        return [record for record in records if record.config == self._config]

    def _runs_of_pipeline(self) -> list[metadata_store_pb2.Context]:
        """Return TFX's contexts of this pipeline's runs; other projects may share the database."""
        pipeline = self._store.get_context_by_type_and_name(PIPELINE_TYPE, self._config)
        if pipeline is None:
            return []
        below = self._store.get_children_contexts_by_context(pipeline.id)
        return [context for context in below if context.type == RUN_TYPE]

    def _of_another_orchestrator(
        self,
        context: metadata_store_pb2.Context,
        executions: Sequence[metadata_store_pb2.Execution],
        pushes: Collection[int],
        refreshes: Collection[int],
    ) -> RunRecord:
        """Return what TFX's records say about a run.

        `pushes` and `refreshes` have the IDs of all executions of the Pusher, and of the component
        that only an index refresh has.
        """
        ordered = sorted(executions, key=lambda execution: execution.id)
        # Only the last try of a component counts.
        states = {execution.type: execution.last_known_state for execution in ordered}
        created = context.create_time_since_epoch
        changed_s = max((e.last_update_time_since_epoch for e in ordered), default=created) / 1000
        state: RunState = "running"
        if any(e.id in pushes and e.last_known_state in DONE_STATES for e in ordered):
            state = "complete"
        elif _FAILED_STATES & set(states.values()):
            state = "failed"
        elif time.time() - changed_s > _SILENCE_S:
            state = "killed"
        return RunRecord(
            self._config,
            context.name,
            command="index" if any(e.id in refreshes for e in ordered) else "run",
            state=state,
            started_s=min((e.create_time_since_epoch for e in ordered), default=created) / 1000,
            ended_s=changed_s if state in ("complete", "failed") else 0.0,
        )

    def _write(self, record: RunRecord, **changes: Any) -> RunRecord:
        record = replace(record, **changes)
        properties = {
            field.name: metadata_store_pb2.DOUBLE
            if field.name in _NUMBERS
            else metadata_store_pb2.STRING
            for field in fields(record)
        }
        context_type = metadata_store_pb2.ContextType(name=_TYPE, properties=properties)
        type_id = self._store.put_context_type(context_type, can_add_fields=True)
        context = metadata_store_pb2.Context(
            type_id=type_id, name=f"{record.config}/{record.run_id}"
        )
        known = self._store.get_context_by_type_and_name(_TYPE, context.name)
        if known is not None:
            context.id = known.id
        for name, value in record.__dict__.items():
            if name in _NUMBERS:
                context.properties[name].double_value = value
            else:
                text = value if isinstance(value, str) else json.dumps(value)
                context.properties[name].string_value = text
        self._store.put_contexts([context])
        return record


def refreshed_through(config: PipelineConfig) -> int | None:
    """Return the newest span of the catalogue that is in service.

    An index refresh reads the newest catalogue, but a run only reads one that is not newer than its
    window. Without this limit, the run after a refresh would bring back the older catalogue.

    Returns:
        The span's number, or None if the catalogue has no spans, if none is in service, or if the
        run reads a fixed span.
    """
    if not _reads_newest_catalogue(config) or not has_metadata(config):
        return None
    last, refreshes = RunHistory(open_store(config), config.name).since_last_complete()
    return newest_catalogue(config, [*refreshes, *([] if last is None else [last])])


def newest_catalogue(config: PipelineConfig, records: Sequence[RunRecord]) -> int | None:
    """Return the newest span of the catalogue that any of the runs has read, as above."""
    if not _reads_newest_catalogue(config):
        return None
    return max((int(record.catalogue) for record in records if record.catalogue), default=None)


def _reads_newest_catalogue(config: PipelineConfig) -> bool:
    catalogue = config.data.candidates
    return catalogue is not None and has_spans(catalogue) and config.data.spans.last == "newest"


def _is_of_this_host(record: RunRecord) -> bool:
    # Earlier versions did not record the host.
    return record.host in ("", socket.gethostname())


def _in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return records oldest first; IDs do not sort by time across orchestrators."""
    return sorted(records, key=lambda record: (record.started_s, record.run_id))


def _read(context: metadata_store_pb2.Context) -> RunRecord:
    # Other versions may have recorded fewer or more properties.
    known = {field.name for field in fields(RunRecord)}
    values: dict[str, Any] = {
        name: value.double_value if name in _NUMBERS else value.string_value
        for name, value in context.properties.items()
        if name in known
    }
    values["summary"] = json.loads(values.get("summary") or "{}")
    return RunRecord(**values)
