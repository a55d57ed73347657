"""The history of runs, which is stored in ML Metadata together with the records of TFX.

TFX records executions and artifacts. `two-tower run` and `two-tower index` also record each run as a
context of the type `two_tower_run`. It is created before the slow imports and updated when the run
ends, so the history includes runs that were killed or that failed before their first component.
"""

import datetime
import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2

from components.interactions.spans.pattern import span_kind
from pipeline.config.project import PipelineConfig
from pipeline.errors import UnknownRunError
from pipeline.runs.lock import is_locked
from pipeline.runs.metadata import (
    NODE_TYPE,
    PIPELINE_TYPE,
    RUN_TYPE,
    Execution,
    executions_of,
    has_metadata,
    open_store,
)
from pipeline.runs.state import InputState

Context: TypeAlias = metadata_store_pb2.Context
_TYPE = "two_tower_run"
# The last component of a run, and a component that only an index refresh has.
_LAST_COMPONENT = "Pusher"
_REFRESH_COMPONENT = "BlessedModel"
# A run of another orchestrator is idle between two tasks, and ML Metadata does not distinguish idle
# runs from killed ones. After this time without a change, a run is considered killed.
_SILENCE_S = 24 * 3600.0
DONE_STATES = frozenset({Execution.COMPLETE, Execution.CACHED})
_FAILED_STATES = frozenset({Execution.FAILED, Execution.CANCELED})
_NUMBERS = ("started_s", "ended_s")
# Attributes of `InputState` that a record contains too.
_INPUTS = ("span", "catalogue", "files", "settings")
# Properties that `to_json` omits: the summary, all settings, and hashes that later runs compare.
_INTERNAL = ("catalogue", "files", "settings", "summary", "configuration")

# Properties that are stored as JSON, and their values in records of earlier releases.
_JSON_PROPERTIES = {
    "summary": "{}",
    "overrides": "[]",
    "is_experiment": "false",
    "configuration": "{}",
}

RunState = Literal["running", "complete", "refused", "failed", "killed"]


def new_run_id() -> str:
    """Return a run ID that consists of the current UTC time, so that IDs sort by start time."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


@dataclass(frozen=True)
class RunRecord:
    """One run in the history.

    Attributes:
        config: Name of the configuration.
        run_id: ID of the run in ML Metadata.
        command: `run` or `index`.
        state: `complete`: the model is served or, in an experiment, could be; `refused`: a gate refused it; `killed`: the process
            ended without recording a result. A run of another orchestrator is `complete` if its
            Pusher has succeeded, and `killed` after a day without a change.
        started_s: Start time in seconds since 1970.
        ended_s: End time in seconds since 1970; 0 for a run that is running or was killed.
        span: Newest span that the run read; empty if the inputs have no spans.
        catalogue: See `InputState`.
        files: See `InputState`.
        settings: See `InputState`.
        problem: Reason why the run was refused or failed, else empty.
        summary: The summary that `two-tower run --json` prints; empty if there is none.
        overrides: The overrides of settings with `--set`, and `--span` in the same form; unknown for
            runs of other orchestrators.
        host: Host name of the machine; empty for a run of another orchestrator.
        name: The name of the experiment, from `--name`.
        is_experiment: Whether the run must not push its model.
        configuration: All settings with which the run was made; empty if they are unknown.
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
    overrides: list[str] = field(default_factory=list)
    name: str = ""
    is_experiment: bool = False
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-serializable data, with the main results of its summary."""
        results = ("gate_metric", "metrics", "gates", "blessed", "pushed_version", "newly_pushed")
        return {
            **{name: value for name, value in self.__dict__.items() if name not in _INTERNAL},
            **{name: self.summary.get(name) for name in results},
        }


class RunHistory:
    """The runs of one configuration, given by its name."""

    def __init__(self, store: MetadataStore, config: str) -> None:
        self._store = store
        self._config = config

    def begin(
        self, run_id: str, command: str, inputs: InputState | None, **about: Any
    ) -> RunRecord:
        """Record the start of a run with other attributes and, if known, the state of its inputs.

        The caller must hold the run lock. So earlier runs of this machine have ended, and the state
        of those that are still recorded as `running` is changed to `killed`.
        """
        for record in self._recorded():
            if record.state == "running" and _is_of_this_host(record):
                self._write(record, state="killed")
        known = {} if inputs is None else {name: getattr(inputs, name) for name in _INPUTS}
        return self._write(
            RunRecord(self._config, run_id, command),
            started_s=time.time(),
            host=socket.gethostname(),
            **about,
            **known,
        )

    def end(
        self, record: RunRecord, state: RunState, problem: str, summary: Mapping[str, Any]
    ) -> RunRecord:
        """Record the end of a run with its state, problem and summary."""
        return self._write(
            record, state=state, problem=problem, summary=summary, ended_s=time.time()
        )

    def records(self, *, is_locked: bool = True) -> list[RunRecord]:
        """Return all runs, oldest first.

        If no process on this machine holds the run lock, its unfinished runs are `killed`.
        """
        found = {
            record.run_id: replace(record, state="killed")
            if record.state == "running" and self._was_killed(record, is_locked)
            else record
            for record in self._recorded()
        }
        others = [context for context in self._runs_of_pipeline() if context.name not in found]
        return _in_order([*found.values(), *self._of_other_orchestrators(others)])

    def since_last_complete(self) -> tuple[RunRecord | None, list[RunRecord]]:
        """Return the newest complete run, or None, and the complete index refreshes after it.

        Experiments are ignored, and runs of other orchestrators are ignored, because they do not record the state of their
        inputs.
        """
        last, refreshes = None, []
        for record in _in_order(self._recorded()):
            if record.state != "complete" or record.is_experiment:
                continue
            if record.command == "index":
                refreshes.append(record)
            elif record.files:
                last, refreshes = record, []
        return last, refreshes

    def _was_killed(self, record: RunRecord, is_locked: bool) -> bool:
        if _is_of_this_host(record):
            return not is_locked
        # The run lock of another machine cannot be checked from here.
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

    def _runs_of_pipeline(self) -> list[Context]:
        """Return TFX's contexts of this project's runs; other projects may share the database."""
        pipeline = self._store.get_context_by_type_and_name(PIPELINE_TYPE, self._config)
        if pipeline is None:
            return []
        below = self._store.get_children_contexts_by_context(pipeline.id)
        return [context for context in below if context.type == RUN_TYPE]

    def _of_other_orchestrators(self, contexts: Sequence[Context]) -> Iterator[RunRecord]:
        """Derive the records of runs from their executions in ML Metadata."""
        if not contexts:
            return
        pipeline = executions_of(self._store, PIPELINE_TYPE, self._config)
        pushes, refreshes = (
            executions_of(self._store, NODE_TYPE, f"{self._config}.{component}").keys()
            for component in (_LAST_COMPONENT, _REFRESH_COMPONENT)
        )
        for context in contexts:
            found = self._store.get_executions_by_context(context.id)
            ordered = sorted((e for e in found if e.id in pipeline), key=lambda found: found.id)
            # The last attempt of a component determines its state.
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
            yield RunRecord(
                self._config,
                context.name,
                command="index" if any(e.id in refreshes for e in ordered) else "run",
                state=state,
                started_s=min((e.create_time_since_epoch for e in ordered), default=created) / 1000,
                ended_s=changed_s if state in ("complete", "failed") else 0.0,
            )

    def _write(self, record: RunRecord, **changes: Any) -> RunRecord:
        record = replace(record, **changes)
        context_type = metadata_store_pb2.ContextType(name=_TYPE)
        for name in record.__dict__:
            is_number = name in _NUMBERS
            kind = metadata_store_pb2.DOUBLE if is_number else metadata_store_pb2.STRING
            context_type.properties[name] = kind
        type_id = self._store.put_context_type(context_type, can_add_fields=True)
        context = Context(type_id=type_id, name=f"{record.config}/{record.run_id}")
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


def records_of(config: PipelineConfig) -> list[RunRecord]:
    """Return all runs of a project, oldest first; empty if there has been none."""
    if not has_metadata(config):
        return []
    history = RunHistory(open_store(config), config.name)
    return history.records(is_locked=is_locked(config.run_dir))


def experiments_of(config: PipelineConfig) -> set[str]:
    """Return the IDs of the experiments of a project."""
    return {record.run_id for record in records_of(config) if record.is_experiment}


def find_run(config: PipelineConfig, run_id: str) -> RunRecord:
    """Return the run with an ID, which may be given by its first characters.

    Raises:
        UnknownRunError: There is no such run, or there are several.
    """
    found = [record for record in records_of(config) if record.run_id.startswith(run_id)]
    if not found:
        raise UnknownRunError(
            f"there is no run {run_id!r} of {config.name}; `two-tower runs` lists them"
        )
    if len(found) > 1:
        ids = ", ".join(record.run_id for record in found[-5:])
        raise UnknownRunError(f"{len(found)} runs of {config.name} begin with {run_id!r}: {ids}")
    return found[0]


def refreshed_through(config: PipelineConfig) -> int | None:
    """Return the newest span of the catalogue that is being served.

    An index refresh may publish a newer catalogue than the newest events. A later run may read
    catalogues up to this span, so that it does not return to an older one. The result is None if
    the catalogue has no spans, if none is being served, or if the run reads a fixed span.
    """
    if not has_metadata(config):
        return None
    last, refreshes = RunHistory(open_store(config), config.name).since_last_complete()
    return newest_catalogue(config, [*refreshes, *([] if last is None else [last])])


def newest_catalogue(config: PipelineConfig, records: Sequence[RunRecord]) -> int | None:
    """Return the newest catalogue span that `records` read, or None as in `refreshed_through`."""
    catalogue = config.data.candidates
    if catalogue is None or not span_kind(catalogue) or config.data.spans.last != "newest":
        return None
    return max((int(record.catalogue) for record in records if record.catalogue), default=None)


def _is_of_this_host(record: RunRecord) -> bool:
    # Earlier releases of this package did not record the host.
    return record.host in ("", socket.gethostname())


def _in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return records sorted by start time; IDs of different orchestrators do not sort by time."""
    return sorted(records, key=lambda record: (record.started_s, record.run_id))


def _read(context: Context) -> RunRecord:
    # Other releases of this package may have recorded fewer or more properties.
    known = {field.name for field in fields(RunRecord)}
    values: dict[str, Any] = {
        name: value.double_value if name in _NUMBERS else value.string_value
        for name, value in context.properties.items()
        if name in known
    }
    for name, missing in _JSON_PROPERTIES.items():
        values[name] = json.loads(values.get(name) or missing)
    return RunRecord(**values)
