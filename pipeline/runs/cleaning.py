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
from pipeline.releases.answering_model import CANDIDATES_FOLDER
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.runs.history import DONE_STATES, RunHistory, RunRecord
from pipeline.runs.metadata import PIPELINE_TYPE, RUN_TYPE, Artifact, component_of, executions_of

# Profiles are small, and each may become the reference of a span that is delivered again.
_KEPT_COMPONENTS = frozenset({"DriftGate"})
# Servers ignore folders whose name is not a number.
_REMOVED_PREFIX = "removed-"


@dataclass(frozen=True)
class Removable:
    """A folder or file to remove; `kind` is artifact, version, log, report or working folder."""

    path: str
    kind: str
    size_bytes: int


@dataclass(frozen=True)
class CleaningPlan:
    """The runs and versions to keep, and the files to remove.
    """

    kept_runs: tuple[str, ...]
    kept_versions: dict[int, str]
    removable: tuple[Removable, ...] = ()
    artifact_ids: tuple[int, ...] = ()

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
    config file labels or loads; that file need not exist. Files that ML Metadata does not list for
    this project are kept too.

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
    project = _Project(config, store)
    kept = project.kept_runs(keep)
    kept_executions, kept_artifacts = project.executions_and_artifacts(kept)
    kept_versions = _kept_versions(
        config, project.pushed_versions(kept, kept_artifacts), model_config_file
    )
    kept_runs = tuple(record.run_id for record in project.records if record.run_id in kept)
    if not project.complete("run"):
        # Without a complete run, there is no replacement for older outputs.
        return CleaningPlan(kept_runs, kept_versions)
    kept_uris = {
        project.artifacts[number].uri for number in kept_artifacts & project.artifacts.keys()
    }
    if not any(project.has(uri) and os.path.exists(uri) for uri in kept_uris):
        raise CleaningError(
            f"nothing was removed: none of the artifacts to keep is in {project.root}. Either the "
            "folder was moved, or this ML Metadata belongs to another folder"
        )
    known_versions = project.pushed_versions(
        {record.run_id for record in project.records}, project.artifacts.keys()
    )
    removable = (
        *project.artifact_folders(kept_executions, kept_uris),
        *project.working_folders(kept_executions),
        *project.logs(kept),
        *_versions(Path(config.serving_dir), known_versions - kept_versions.keys()),
    )
    removed_paths = {found.path for found in removable}
    artifact_ids = tuple(
        number
        for number, artifact in sorted(project.artifacts.items())
        if artifact.state != Artifact.DELETED
        and (
            artifact.uri in removed_paths
            # Also mark artifacts that were removed manually or by a killed removal.
            or (project.has(artifact.uri) and not os.path.exists(artifact.uri))
        )
    )
    return CleaningPlan(kept_runs, kept_versions, removable, artifact_ids)


def carry_out(plan: CleaningPlan, store: MetadataStore) -> None:
    """Remove the files of a plan; the caller must hold the run lock."""
    artifacts = store.get_artifacts_by_id(list(plan.artifact_ids)) if plan.artifact_ids else []
    for artifact in artifacts:
        artifact.state = Artifact.DELETED
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


class _Project:
    """The runs, executions and artifacts of one project; projects may share a database and run IDs.
    """

    def __init__(self, config: PipelineConfig, store: MetadataStore) -> None:
        self._store = store
        self._run_dir = config.run_dir
        self.root = config.run_dir / "artifacts"
        self.records = RunHistory(store, config.name).records(is_locked=False)
        self.executions = executions_of(store, PIPELINE_TYPE, config.name)
        pipeline = store.get_context_by_type_and_name(PIPELINE_TYPE, config.name)
        found = [] if pipeline is None else store.get_artifacts_by_context(pipeline.id)
        self.artifacts = {artifact.id: artifact for artifact in found}

    def has(self, uri: str) -> bool:
        """Return whether a URI is below `root`."""
        return uri.startswith(f"{self.root}{os.sep}")

    def executions_and_artifacts(
        self, run_ids: Iterable[str], *, outputs_only: bool = False
    ) -> tuple[set[int], set[int]]:
        """Return the IDs of the executions of runs, and of their input and output artifacts."""
        of_runs = (executions_of(self._store, RUN_TYPE, run_id).keys() for run_id in run_ids)
        executions = set[int]().union(*of_runs) & self.executions.keys()
        found = self._store.get_events_by_execution_ids(sorted(executions)) if executions else []
        output = metadata_store_pb2.Event.OUTPUT
        return executions, {e.artifact_id for e in found if e.type == output or not outputs_only}

    def complete(self, command: str, first: int = 0) -> list[RunRecord]:
        """Return the complete runs of a command, from the record at position `first` on."""
        return [r for r in self.records[first:] if (r.state, r.command) == ("complete", command)]

    def kept_runs(self, keep: int) -> set[str]:
        """Return the IDs of the runs to keep."""
        # A refresh has no statistics, Transform or training, so it cannot replace a run.
        runs, records = self.complete("run"), self.records
        if not runs:
            return {record.run_id for record in records}
        oldest, newest = records.index(runs[-keep:][0]), records.index(runs[-1])
        kept = [*runs[-keep:], *self.complete("index", oldest)[-keep:]]
        kept += [record for record in records[newest:] if record.state != "complete"]
        kept += [record for record in records if record.state == "running"]
        return {record.run_id for record in kept} | self._run_of_last_blessed()

    def _run_of_last_blessed(self) -> set[str]:
        """Return the ID of the newest run with the last blessed model, which the gate compares with."""
        blessed = {
            artifact.custom_properties["current_model_id"].int_value
            for artifact in self._of_type("ModelBlessing")
            if artifact.state == Artifact.LIVE
            and artifact.custom_properties["blessed"].int_value == 1
        } & self.artifacts.keys()
        pushed = {artifact.id for artifact in self._of_type("PushedModel")}
        for record in reversed(self.records):
            # A run has the model if it trained it or took it from the cache. Models that were not
            # pushed are not compared with.
            if record.command == "run" and blessed:
                _, made = self.executions_and_artifacts([record.run_id], outputs_only=True)
                has_pushed = record.summary.get("pushed_version") is not None or pushed & made
                if blessed & made and has_pushed:
                    return {record.run_id}
        return set()

    def pushed_versions(
        self, run_ids: Collection[str], artifact_ids: Collection[int]
    ) -> set[int]:
        """Return the versions that runs pushed, from run summaries and artifacts of the Pusher.

        Runs of other orchestrators have no summary, so their versions are only in artifacts.
        """
        key = "pushed_version"
        in_summaries = {
            int(record.summary[key])
            for record in self.records
            if record.run_id in run_ids and record.summary.get(key) is not None
        }
        in_artifacts = (
            artifact.custom_properties[key].string_value
            for artifact in self._of_type("PushedModel")
            if artifact.id in artifact_ids
        )
        return in_summaries | {int(version) for version in in_artifacts if version.isdecimal()}

    def artifact_folders(
        self, kept_executions: Collection[int], kept_uris: Collection[str]
    ) -> Iterator[Removable]:
        """Yield the output folders `COMPONENT/OUTPUT/EXECUTION` to remove."""
        old_uris = {artifact.uri for artifact in self.artifacts.values()}.difference(kept_uris)
        # TFX records outputs when an execution ends, so those of killed ones are not recorded.
        unfinished = {
            (component_of(self._store, execution), str(number))
            for number, execution in self.executions.items()
            if number not in kept_executions and execution.last_known_state not in DONE_STATES
        }
        for folder in sorted(self.root.glob("*/*/*")):
            component, _, number = folder.parts[-3:]
            if component in _KEPT_COMPONENTS or not number.isdecimal() or not folder.is_dir():
                continue
            if str(folder) in old_uris or (component, number) in unfinished:
                yield Removable(str(folder), "artifact", _size(folder))

    def working_folders(self, kept_executions: Collection[int]) -> Iterator[Removable]:
        """Yield the folders in which TFX kept the state of executors."""
        old = {str(number) for number in self.executions.keys() - kept_executions}
        for folder in sorted(self.root.glob("*/.system/executor_execution/*")):
            if folder.name in old:
                yield Removable(str(folder), "working folder", _size(folder))

    def logs(self, kept: Collection[str]) -> Iterator[Removable]:
        """Yield the logs and reports of runs that are not kept, and their models to inspect."""
        for record in self.records:
            log = self._run_dir / "logs" / f"{record.run_id}.log"
            if record.run_id not in kept and log.is_file():
                yield Removable(str(log), "log", log.stat().st_size)
            model = self._run_dir / CANDIDATES_FOLDER / record.run_id
            if record.run_id not in kept and model.is_dir():
                yield Removable(str(model), "working folder", _size(model))
            report = self._run_dir / "reports" / record.run_id
            if record.run_id not in kept and report.is_dir():
                yield Removable(str(report), "report", _size(report))

    def _of_type(self, name: str) -> list[Artifact]:
        return [artifact for artifact in self.artifacts.values() if artifact.type == name]


def _kept_versions(
    config: PipelineConfig, pushed: Collection[int], model_config_file: Path
) -> dict[int, str]:
    """Return the versions to keep, with the reasons; `pushed` contains those of kept runs."""
    present = _present_versions(Path(config.serving_dir))
    file = ModelConfigFile(model_config_file, config.serving.model_name, config.serving_dir)
    loaded = file.loaded_versions(present) if model_config_file.exists() else ()
    found = [
        *((version, "newest") for version in sorted(present)[-1:]),
        *((version, label) for label, version in sorted(file.release().labels.items())),
        *((version, "loaded") for version in loaded),
        *((version, "pushed by a kept run") for version in pushed),
    ]
    return {
        version: ", ".join(reason for other, reason in found if other == version)
        for version in sorted({version for version, _ in found} & present)
    }


def _versions(serving_dir: Path, old_versions: Collection[int]) -> Iterator[Removable]:
    folders = [serving_dir / str(v) for v in sorted(_present_versions(serving_dir) & {*old_versions})]
    for folder in [*folders, *sorted(serving_dir.glob(f"{_REMOVED_PREFIX}*"))]:
        yield Removable(str(folder), "version", _size(folder))


def _present_versions(serving_dir: Path) -> set[int]:
    names = (folder.name for folder in serving_dir.glob("[1-9]*") if folder.is_dir())
    return {int(name) for name in names if name.isdecimal()}


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
