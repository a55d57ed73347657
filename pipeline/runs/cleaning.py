"""Removal of artifacts, logs and versions of old runs that are no longer needed.

Artifacts are marked as deleted in ML Metadata before their files are removed. TFX's cache and
resolvers ignore deleted artifacts, so folders that a killed removal leaves behind are not used, and
the next removal deletes them. Files that ML Metadata does not list for this project are kept,
because they may belong to another project or another database.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.project import PipelineConfig
from pipeline.errors import CleaningError
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.runs.history import DONE_STATES, RunHistory, RunRecord
from pipeline.runs.metadata import PIPELINE_TYPE, RUN_TYPE, component_of, executions_of

_Artifact = metadata_store_pb2.Artifact
_Event = metadata_store_pb2.Event
# Custom properties of TFX's Model, ModelBlessing and PushedModel.
_BLESSED_KEY = "blessed"
_CURRENT_MODEL_KEY = "current_model_id"
_PUSHED_VERSION_KEY = "pushed_version"
# Profiles are small, and each may become the baseline of a span that is delivered again.
_KEPT_COMPONENTS = frozenset({"DriftGate"})
# Servers ignore folders whose name is not a number.
_REMOVED_PREFIX = "removed-"


@dataclass(frozen=True)
class Removable:
    """A folder or file that can be removed.

    Attributes:
        path: Path of the folder or file.
        kind: `artifact`, `version`, `log` or `working folder`.
        size_bytes: Total size of the files, in bytes.
    """

    path: str
    kind: str
    size_bytes: int


@dataclass(frozen=True)
class CleaningPlan:
    """The runs and versions to keep, and the files to remove.

    Attributes:
        kept_runs: IDs of the runs to keep completely, oldest first.
        kept_versions: Served versions to keep, with the reason.
        removable: Folders and files to remove.
        artifact_ids: IDs of the artifacts to mark as deleted in ML Metadata.
    """

    kept_runs: tuple[str, ...]
    kept_versions: dict[int, str]
    removable: tuple[Removable, ...]
    artifact_ids: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Total size of the files to remove, in bytes."""
        return sum(found.size_bytes for found in self.removable)


def plan_cleaning(
    config: PipelineConfig, store: MetadataStore, keep: int, model_config_file: Path
) -> CleaningPlan:
    """Decide which outputs of old runs to keep and which to remove.

    These runs are kept, with all outputs that they wrote or took from the cache:

    - the newest `keep` complete runs, and up to `keep` index refreshes after the oldest of them
    - runs in progress, and incomplete runs after the last complete one
    - the run of the last blessed model

    These versions are kept: the newest one, those that kept runs pushed, and those that the model
    config file labels or loads. Files that ML Metadata does not list for this project are kept too.

    Args:
        config: The configuration of the project.
        store: The project's ML Metadata.
        keep: Number of complete runs to keep, at least 1.
        model_config_file: The model config file of the servers, which need not exist.

    Raises:
        CleaningError: Served versions are not on this machine, or the artifacts are not in the
            folders that ML Metadata lists.
        ReleaseError: The model config file cannot be read.
    """
    if "://" in config.serving_dir:
        raise CleaningError(
            f"only served versions on this machine can be cleaned, but they are in "
            f"{config.serving_dir}"
        )
    records = RunHistory(store, config.name).records(is_locked=False)
    project = _ProjectMetadata(store, config.name)
    kept = _kept_runs(project, records, keep)
    kept_executions, kept_artifacts = project.executions_and_artifacts(kept)
    kept_versions = _kept_versions(
        config, _pushed_versions(project, records, kept, kept_artifacts), model_config_file
    )
    kept_runs = tuple(record.run_id for record in records if record.run_id in kept)
    if not _complete(records, "run"):
        # Without a complete run, there is no replacement for older outputs.
        return CleaningPlan(kept_runs, kept_versions, removable=(), artifact_ids=())
    root = config.run_dir / "artifacts"
    kept_uris = {
        project.artifacts[number].uri for number in kept_artifacts & project.artifacts.keys()
    }
    if not any(_is_below(uri, root) and os.path.exists(uri) for uri in kept_uris):
        raise CleaningError(
            f"nothing was removed: none of the artifacts to keep is in {root}. Either the folder "
            "was moved, or this ML Metadata belongs to another folder"
        )
    every_run = {record.run_id for record in records}
    known_versions = _pushed_versions(project, records, every_run, project.artifacts.keys())
    removable = (
        *_artifact_folders(root, project, kept_executions, kept_uris),
        *_working_folders(root, project.executions.keys() - kept_executions),
        *_logs(config, records, kept),
        *_versions(Path(config.serving_dir), known_versions - kept_versions.keys()),
    )
    removed_paths = {found.path for found in removable}
    return CleaningPlan(
        kept_runs=kept_runs,
        kept_versions=kept_versions,
        removable=removable,
        artifact_ids=tuple(
            number
            for number, artifact in sorted(project.artifacts.items())
            if artifact.state != _Artifact.DELETED
            and (
                artifact.uri in removed_paths
                # Also mark artifacts that were removed manually or by a killed removal.
                or (_is_below(artifact.uri, root) and not os.path.exists(artifact.uri))
            )
        ),
    )


def carry_out(plan: CleaningPlan, store: MetadataStore) -> None:
    """Remove the files of a plan; the caller must hold the run lock."""
    artifacts = store.get_artifacts_by_id(list(plan.artifact_ids)) if plan.artifact_ids else []
    for artifact in artifacts:
        artifact.state = _Artifact.DELETED
    if artifacts:
        store.put_artifacts(artifacts)
    for found in plan.removable:
        path = Path(found.path)
        if found.kind == "version" and not path.name.startswith(_REMOVED_PREFIX):
            # Rename it first, so that a server never finds an incomplete version.
            path = path.rename(path.with_name(_REMOVED_PREFIX + path.name))
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _ProjectMetadata:
    """The executions and artifacts of one project; projects may share a database and run IDs.

    Attributes:
        store: ML Metadata.
        executions: Executions of the project, by ID.
        artifacts: Inputs and outputs of these executions by ID, including deleted ones.
    """

    def __init__(self, store: MetadataStore, name: str) -> None:
        self.store = store
        self.executions = executions_of(store, PIPELINE_TYPE, name)
        pipeline = store.get_context_by_type_and_name(PIPELINE_TYPE, name)
        found = [] if pipeline is None else store.get_artifacts_by_context(pipeline.id)
        self.artifacts = {artifact.id: artifact for artifact in found}

    def of_type(self, name: str) -> list[metadata_store_pb2.Artifact]:
        return [artifact for artifact in self.artifacts.values() if artifact.type == name]

    def executions_and_artifacts(
        self, run_ids: Iterable[str], *, outputs_only: bool = False
    ) -> tuple[set[int], set[int]]:
        """Return the IDs of the executions of runs, and of their input and output artifacts."""
        executions: set[int] = set()
        for run_id in run_ids:
            executions |= executions_of(self.store, RUN_TYPE, run_id).keys()
        executions &= self.executions.keys()
        if not executions:
            return executions, set()
        events = self.store.get_events_by_execution_ids(sorted(executions))
        return executions, {
            event.artifact_id for event in events if event.type == _Event.OUTPUT or not outputs_only
        }


def _complete(records: Iterable[RunRecord], command: str) -> list[RunRecord]:
    return [r for r in records if (r.state, r.command) == ("complete", command)]


def _kept_runs(project: _ProjectMetadata, records: list[RunRecord], keep: int) -> set[str]:
    # A refresh has no statistics, Transform or training, so it cannot replace a run.
    runs = _complete(records, "run")
    if not runs:
        return {record.run_id for record in records}
    oldest, newest = records.index(runs[-keep:][0]), records.index(runs[-1])
    kept = [*runs[-keep:], *_complete(records[oldest:], "index")[-keep:]]
    kept += [record for record in records[newest:] if record.state != "complete"]
    kept += [record for record in records if record.state == "running"]
    return {record.run_id for record in kept} | _run_of_last_blessed(project, records)


def _run_of_last_blessed(project: _ProjectMetadata, records: list[RunRecord]) -> set[str]:
    """Return the ID of the newest run with the last blessed model, which a refresh would use."""
    blessed = {
        artifact.custom_properties[_CURRENT_MODEL_KEY].int_value
        for artifact in project.of_type("ModelBlessing")
        if artifact.state == _Artifact.LIVE
        and artifact.custom_properties[_BLESSED_KEY].int_value == 1
    } & project.artifacts.keys()
    for record in reversed(records):
        # A run has the model if it trained it or took it from the cache.
        if record.command == "run" and blessed:
            _, made = project.executions_and_artifacts([record.run_id], outputs_only=True)
            if max(blessed) in made:
                return {record.run_id}
    return set()


def _artifact_folders(
    root: Path,
    project: _ProjectMetadata,
    kept_executions: Collection[int],
    kept_uris: Collection[str],
) -> Iterator[Removable]:
    """Yield the output folders `COMPONENT/OUTPUT/EXECUTION` to remove."""
    old_uris = {artifact.uri for artifact in project.artifacts.values()}.difference(kept_uris)
    # TFX records outputs when an execution ends, so those of killed executions are not recorded.
    unfinished = {
        (component_of(project.store, execution), str(number))
        for number, execution in project.executions.items()
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
    project: _ProjectMetadata,
    records: Iterable[RunRecord],
    run_ids: Collection[str],
    artifact_ids: Collection[int],
) -> set[int]:
    """Return the versions that runs pushed, from run summaries and artifacts of the Pusher.

    Runs of other orchestrators have no summary, so their versions are only in artifacts.
    """
    summaries = (record.summary for record in records if record.run_id in run_ids)
    in_summaries = (summary.get(_PUSHED_VERSION_KEY) for summary in summaries)
    in_artifacts = (
        artifact.custom_properties[_PUSHED_VERSION_KEY].string_value
        for artifact in project.of_type("PushedModel")
        if artifact.id in artifact_ids
    )
    return {version for version in in_summaries if version is not None} | {
        int(version) for version in in_artifacts if version.isdecimal()
    }


def _kept_versions(
    config: PipelineConfig, pushed: Collection[int], model_config_file: Path
) -> dict[int, str]:
    """Return the versions to keep, with the reasons; `pushed` contains those of kept runs."""
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
        reasons.setdefault(version, []).append("pushed by a kept run")
    return {
        version: ", ".join(found)
        for version, found in sorted(reasons.items())
        if version in present
    }


def _versions(serving_dir: Path, old_versions: Collection[int]) -> Iterator[Removable]:
    folders = [serving_dir / str(v) for v in sorted(_present_versions(serving_dir) & {*old_versions})]
    for folder in [*folders, *sorted(serving_dir.glob(f"{_REMOVED_PREFIX}*"))]:
        yield Removable(str(folder), "version", _size(folder))


def _present_versions(serving_dir: Path) -> set[int]:
    if not serving_dir.is_dir():
        return set()
    return {
        int(folder.name)
        for folder in serving_dir.iterdir()
        if folder.name.isdecimal() and folder.name == str(int(folder.name)) and folder.is_dir()
    }


def _is_below(uri: str, root: Path) -> bool:
    return uri.startswith(f"{root}{os.sep}")


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
