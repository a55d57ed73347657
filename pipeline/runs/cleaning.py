"""Finds what old runs left that nothing serves or depends on, and removes it.

ML Metadata is told first, then files go: a removal that is killed leaves folders that nothing
takes for artifacts any more, and the next one finds them. TFX's cache and resolvers take live
artifacts only. What ML Metadata does not know of this use stays: it may have been made with
another database, or by another use.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.project import PipelineConfig
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.runs.history import (
    DONE_STATES,
    PIPELINE_TYPE,
    RUN_TYPE,
    RunHistory,
    RunRecord,
    component_of,
    executions_of,
)

_Artifact = metadata_store_pb2.Artifact
_Event = metadata_store_pb2.Event
# Of TFX's Model and ModelBlessing.
_BLESSED_KEY = "blessed"
_CURRENT_MODEL_KEY = "current_model_id"
# Of TFX's PushedModel.
_PUSHED_VERSION_KEY = "pushed_version"
# Profiles of spans are small, and each may become the measure of a span delivered again.
_KEPT_COMPONENTS = frozenset({"DriftGate"})
# What a server does not take for a version.
_REMOVED_PREFIX = "removed-"


class CleaningError(Exception):
    """This place cannot be cleaned; nothing was removed."""


@dataclass(frozen=True)
class Removable:
    """A folder or file that can go.

    Attributes:
        path: Where it is.
        kind: `artifact`, `version`, `log` or `working folder`.
        size_bytes: Of all files in it.
    """

    path: str
    kind: str
    size_bytes: int


@dataclass(frozen=True)
class CleaningPlan:
    """What stays and what goes.

    Attributes:
        kept_runs: Ids of runs of which everything stays, oldest first.
        kept_versions: Served versions that stay, and why.
        removable: What goes, by path.
        artifact_ids: What ML Metadata calls deleted then.
    """

    kept_runs: tuple[str, ...]
    kept_versions: dict[int, str]
    removable: tuple[Removable, ...]
    artifact_ids: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """What it frees."""
        return sum(found.size_bytes for found in self.removable)


def plan_cleaning(
    config: PipelineConfig, store: MetadataStore, keep: int, model_config_file: Path
) -> CleaningPlan:
    """Finds what can go.

    What stays: all that the newest `keep` complete runs made or took from the cache, and as many
    index refreshes since the oldest of them; all of runs that are under way, or that did not
    complete since the last that did; the run that made the model that was blessed last; the newest
    served version, those that the kept runs pushed, and those that the model config file names or
    loads; and all that ML Metadata does not know of this use.

    Args:
        config: The use.
        store: Its ML Metadata.
        keep: How many complete runs stay, at least 1.
        model_config_file: Versions and labels of the servers; it need not exist.

    Raises:
        CleaningError: The runs do not lie on this machine's filesystem, or not where ML Metadata
            has them.
        ReleaseError: The model config file cannot be read.
    """
    if "://" in config.serving_dir:
        raise CleaningError("served versions must lie on this machine to be cleaned")
    records = RunHistory(store, config.name).records(under_way=False)
    use = _Use(store, config.name)
    kept = _kept_runs(use, records, keep)
    kept_executions, kept_artifacts = use.belongings(kept)
    kept_versions = _kept_versions(
        config, _pushed_versions(use, records, kept, kept_artifacts), model_config_file
    )
    ordered = tuple(record.run_id for record in records if record.run_id in kept)
    if not _complete(records, "run"):
        # There is nothing that could stand in for what would go.
        return CleaningPlan(ordered, kept_versions, removable=(), artifact_ids=())
    root = config.run_dir / "artifacts"
    kept_uris = {use.artifacts[number].uri for number in kept_artifacts & use.artifacts.keys()}
    if not any(_lies_below(uri, root) and os.path.exists(uri) for uri in kept_uris):
        raise CleaningError(
            f"no artifact of the runs that stay lies in {root}, so the folder was moved, or this "
            "ML Metadata is of another one; nothing was removed"
        )
    every_run = {record.run_id for record in records}
    known_versions = _pushed_versions(use, records, every_run, use.artifacts.keys())
    removable = (
        *_artifact_folders(root, use, kept_executions, kept_uris),
        *_working_folders(root, use.executions.keys() - kept_executions),
        *_logs(config, records, kept),
        *_versions(Path(config.serving_dir), known_versions - kept_versions.keys()),
    )
    gone = {found.path for found in removable}
    return CleaningPlan(
        kept_runs=ordered,
        kept_versions=kept_versions,
        removable=removable,
        artifact_ids=tuple(
            number
            for number, artifact in sorted(use.artifacts.items())
            if artifact.state != _Artifact.DELETED
            and (
                artifact.uri in gone
                # Lost by hand, or by a removal that was killed.
                or (_lies_below(artifact.uri, root) and not os.path.exists(artifact.uri))
            )
        ),
    )


def carry_out(plan: CleaningPlan, store: MetadataStore) -> None:
    """Removes what a plan names. The caller holds the run lock."""
    artifacts = store.get_artifacts_by_id(list(plan.artifact_ids)) if plan.artifact_ids else []
    for artifact in artifacts:
        artifact.state = _Artifact.DELETED
    if artifacts:
        store.put_artifacts(artifacts)
    for found in plan.removable:
        path = Path(found.path)
        if found.kind == "version" and not path.name.startswith(_REMOVED_PREFIX):
            # A server must never find half a version.
            path = path.rename(path.with_name(_REMOVED_PREFIX + path.name))
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _Use:
    """What ML Metadata knows of one use; several may share a database, and the ids of runs.

    Args:
        store: ML Metadata.
        name: Of the configuration.

    Attributes:
        store: ML Metadata.
        executions: All of them, by id.
        artifacts: All that they were given or made, by id, also what was removed.
    """

    def __init__(self, store: MetadataStore, name: str) -> None:
        self.store = store
        self.executions = executions_of(store, PIPELINE_TYPE, name)
        pipeline = store.get_context_by_type_and_name(PIPELINE_TYPE, name)
        found = [] if pipeline is None else store.get_artifacts_by_context(pipeline.id)
        self.artifacts = {artifact.id: artifact for artifact in found}

    def of_type(self, name: str) -> list[metadata_store_pb2.Artifact]:
        """Returns the artifacts of a type."""
        return [artifact for artifact in self.artifacts.values() if artifact.type == name]

    def belongings(
        self, run_ids: Iterable[str], *, made_only: bool = False
    ) -> tuple[set[int], set[int]]:
        """Returns the executions of runs, and the artifacts that they were given or made."""
        executions: set[int] = set()
        for run_id in run_ids:
            executions |= executions_of(self.store, RUN_TYPE, run_id).keys()
        executions &= self.executions.keys()
        if not executions:
            return executions, set()
        events = self.store.get_events_by_execution_ids(sorted(executions))
        return executions, {
            event.artifact_id for event in events if event.type == _Event.OUTPUT or not made_only
        }


def _complete(records: Iterable[RunRecord], command: str) -> list[RunRecord]:
    return [r for r in records if (r.state, r.command) == ("complete", command)]


def _kept_runs(use: _Use, records: list[RunRecord], keep: int) -> set[str]:
    # A refresh has no statistics, no Transform and no fit: it does not stand in for a run.
    runs = _complete(records, "run")
    if not runs:
        return {record.run_id for record in records}
    oldest, newest = records.index(runs[-keep:][0]), records.index(runs[-1])
    kept = [*runs[-keep:], *_complete(records[oldest:], "index")[-keep:]]
    kept += [record for record in records[newest:] if record.state != "complete"]
    kept += [record for record in records if record.state == "running"]
    return {record.run_id for record in kept} | _run_of_last_blessed(use, records)


def _run_of_last_blessed(use: _Use, records: list[RunRecord]) -> set[str]:
    """An index refresh serves the model that was blessed last, with the Examples of its run."""
    blessed = {
        artifact.custom_properties[_CURRENT_MODEL_KEY].int_value
        for artifact in use.of_type("ModelBlessing")
        if artifact.state == _Artifact.LIVE
        and artifact.custom_properties[_BLESSED_KEY].int_value == 1
    }
    mine = blessed & use.artifacts.keys()
    for record in reversed(records):
        # The newest run that has it, be it from the cache; refreshes and evaluations are given it.
        if record.command == "run" and mine:
            _, made = use.belongings([record.run_id], made_only=True)
            if max(mine) in made:
                return {record.run_id}
    return set()


def _artifact_folders(
    root: Path, use: _Use, kept_executions: Collection[int], kept_uris: Collection[str]
) -> Iterator[Removable]:
    """Yields what lies in the places of outputs, `COMPONENT/OUTPUT/EXECUTION`, and is not kept."""
    old_uris = {artifact.uri for artifact in use.artifacts.values()}.difference(kept_uris)
    # TFX names the artifacts of an execution when it has ended; this is what killed ones left.
    unfinished = {
        (component_of(use.store, execution), str(number))
        for number, execution in use.executions.items()
        if number not in kept_executions and execution.last_known_state not in DONE_STATES
    }
    for folder in sorted(root.glob("*/*/*")):
        component, _, number = folder.parts[-3:]
        if component in _KEPT_COMPONENTS or not number.isdecimal() or not folder.is_dir():
            continue
        if str(folder) in old_uris or (component, number) in unfinished:
            yield Removable(str(folder), "artifact", _size(folder))


def _working_folders(root: Path, old_executions: Collection[int]) -> Iterator[Removable]:
    for folder in sorted(root.glob("*/.system/executor_execution/*")):
        if folder.name.isdecimal() and int(folder.name) in old_executions:
            yield Removable(str(folder), "working folder", _size(folder))


def _logs(
    config: PipelineConfig, records: Iterable[RunRecord], kept: Collection[str]
) -> Iterator[Removable]:
    for record in records:
        log = config.run_dir / "logs" / f"{record.run_id}.log"
        if record.run_id not in kept and log.is_file():
            yield Removable(str(log), "log", log.stat().st_size)


def _pushed_versions(
    use: _Use,
    records: Iterable[RunRecord],
    run_ids: Collection[str],
    artifact_ids: Collection[int],
) -> set[int]:
    """Returns the versions that runs pushed: by their summaries, or by what their Pusher made.

    Runs of other orchestrators have no summary.
    """
    summaries = (record.summary for record in records if record.run_id in run_ids)
    noted = (summary.get(_PUSHED_VERSION_KEY) for summary in summaries)
    named = (
        artifact.custom_properties[_PUSHED_VERSION_KEY].string_value
        for artifact in use.of_type("PushedModel")
        if artifact.id in artifact_ids
    )
    return {version for version in noted if version is not None} | {
        int(version) for version in named if version.isdecimal()
    }


def _kept_versions(
    config: PipelineConfig, pushed: Collection[int], model_config_file: Path
) -> dict[int, str]:
    """Returns the versions that stay, and why.

    Args:
        config: The use.
        pushed: What the kept runs pushed.
        model_config_file: Versions and labels of the servers.
    """
    reasons: dict[int, list[str]] = {}
    present = _present_versions(Path(config.serving_dir))
    if present:
        reasons.setdefault(max(present), []).append("newest")
    file = ModelConfigFile(model_config_file, config.serving.model_name, config.serving_dir)
    for label, version in sorted(file.release().labels.items()):
        reasons.setdefault(version, []).append(label)
    if model_config_file.exists():
        for version in file.loaded_versions(present):
            reasons.setdefault(version, []).append("loaded")
    for version in pushed:
        reasons.setdefault(version, []).append("of a kept run")
    return {
        version: ", ".join(found)
        for version, found in sorted(reasons.items())
        if version in present
    }


def _versions(serving_dir: Path, old_versions: Collection[int]) -> Iterator[Removable]:
    for version in sorted(_present_versions(serving_dir)):
        if version in old_versions:
            folder = serving_dir / str(version)
            yield Removable(str(folder), "version", _size(folder))
    for folder in sorted(serving_dir.glob(f"{_REMOVED_PREFIX}*")):
        yield Removable(str(folder), "version", _size(folder))


def _present_versions(serving_dir: Path) -> set[int]:
    if not serving_dir.is_dir():
        return set()
    return {
        int(folder.name)
        for folder in serving_dir.iterdir()
        if folder.name.isdecimal() and folder.name == str(int(folder.name)) and folder.is_dir()
    }


def _lies_below(uri: str, root: Path) -> bool:
    return uri.startswith(f"{root}{os.sep}")


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
