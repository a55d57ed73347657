"""Finds what old runs left that nothing serves or depends on, and removes it.

ML Metadata is told first, then files go: a removal that is killed leaves folders that nothing
takes for artifacts any more, and the next one finds them. TFX's cache and resolvers take live
artifacts only.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config import PipelineConfig
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.run_history import RUN_TYPE, RunHistory, RunRecord

_Artifact = metadata_store_pb2.Artifact
# Of TFX's Model and ModelBlessing.
_BLESSED_KEY = "blessed"
_CURRENT_MODEL_KEY = "current_model_id"
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

    What stays: all that the newest `keep` complete runs made or took from the cache; all of runs
    newer than the newest complete one; the run of the model that was blessed last; the newest
    served version, those that the kept runs pushed, and those that the model config file names.

    Args:
        config: The use.
        store: Its ML Metadata.
        keep: How many complete runs stay, at least 1.
        model_config_file: Versions and labels of the servers; it need not exist.

    Raises:
        CleaningError: The runs do not lie on this machine's filesystem.
        ReleaseError: The model config file cannot be read.
    """
    if "://" in str(config.runs) or "://" in config.serving_dir:
        raise CleaningError("runs and served versions must lie on this machine to be cleaned")
    records = RunHistory(store, config.name).records(under_way=False)
    kept = _kept_runs(store, records, keep)
    kept_executions, kept_artifacts = _belongings(store, kept)
    artifacts = store.get_artifacts()
    kept_uris = {artifact.uri for artifact in artifacts if artifact.id in kept_artifacts}
    root = config.run_dir / "artifacts"
    removable: list[Removable] = []
    # Without a complete run there is nothing that could stand in for what would go.
    if any(record.state == "complete" for record in records):
        removable += _artifact_folders(root, kept_uris)
        removable += _working_folders(root, kept_executions)
        removable += _logs(config, records, kept)
    gone = {found.path for found in removable}
    kept_versions = _kept_versions(config, records, kept, model_config_file)
    removable += _versions(Path(config.serving_dir), kept_versions)
    return CleaningPlan(
        kept_runs=tuple(sorted(kept)),
        kept_versions=kept_versions,
        removable=tuple(removable),
        artifact_ids=tuple(
            sorted(
                artifact.id
                for artifact in artifacts
                if artifact.state != _Artifact.DELETED
                and (
                    artifact.uri in gone
                    # Lost by hand, or by a removal that was killed.
                    or (_lies_below(artifact.uri, root) and not os.path.exists(artifact.uri))
                )
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


def _kept_runs(store: MetadataStore, records: list[RunRecord], keep: int) -> set[str]:
    complete = [record.run_id for record in records if record.state == "complete"]
    if not complete:
        return {record.run_id for record in records}
    kept = set(complete[-keep:])
    kept |= {record.run_id for record in records if record.run_id > complete[-1]}
    return kept | _run_of_last_blessed(store, [record.run_id for record in records])


def _run_of_last_blessed(store: MetadataStore, run_ids: list[str]) -> set[str]:
    """An index refresh serves the model that was blessed last, with the Examples of its run."""
    blessed = {
        artifact.custom_properties[_CURRENT_MODEL_KEY].int_value
        for artifact in store.get_artifacts_by_type("ModelBlessing")
        if artifact.state == _Artifact.LIVE
        and artifact.custom_properties[_BLESSED_KEY].int_value == 1
    }
    # Several configurations may share a database: only models of these runs count.
    artifacts = {run_id: _belongings(store, {run_id})[1] for run_id in run_ids}
    mine = blessed.intersection(*[set().union(*artifacts.values())])
    holding = [run_id for run_id in run_ids if mine and max(mine) in artifacts[run_id]]
    return set(holding[-1:])


def _belongings(store: MetadataStore, run_ids: Collection[str]) -> tuple[set[int], set[int]]:
    """Returns the executions of runs, and the artifacts that they were given or made."""
    executions: set[int] = set()
    for run_id in run_ids:
        context = store.get_context_by_type_and_name(RUN_TYPE, run_id)
        if context is not None:
            executions |= {found.id for found in store.get_executions_by_context(context.id)}
    if not executions:
        return executions, set()
    events = store.get_events_by_execution_ids(sorted(executions))
    return executions, {event.artifact_id for event in events}


def _artifact_folders(root: Path, kept_uris: Collection[str]) -> Iterator[Removable]:
    """Yields what lies in the places of outputs, `COMPONENT/OUTPUT/EXECUTION`, and is not kept."""
    for folder in sorted(root.glob("*/*/*")):
        if folder.parts[-3] in _KEPT_COMPONENTS:
            continue
        if folder.name.isdecimal() and folder.is_dir() and str(folder) not in kept_uris:
            yield Removable(str(folder), "artifact", _size(folder))


def _working_folders(root: Path, kept_executions: Collection[int]) -> Iterator[Removable]:
    for folder in sorted(root.glob("*/.system/executor_execution/*")):
        if folder.name.isdecimal() and int(folder.name) not in kept_executions:
            yield Removable(str(folder), "working folder", _size(folder))


def _logs(
    config: PipelineConfig, records: Iterable[RunRecord], kept: Collection[str]
) -> Iterator[Removable]:
    for record in records:
        log = config.run_dir / "logs" / f"{record.run_id}.log"
        if record.run_id not in kept and log.is_file():
            yield Removable(str(log), "log", log.stat().st_size)


def _kept_versions(
    config: PipelineConfig,
    records: Iterable[RunRecord],
    kept: Collection[str],
    model_config_file: Path,
) -> dict[int, str]:
    reasons: dict[int, list[str]] = {}
    present = _present_versions(Path(config.serving_dir))
    if present:
        reasons.setdefault(max(present), []).append("newest")
    release = ModelConfigFile(
        model_config_file, config.serving.model_name, config.serving_dir
    ).release()
    for label, version in sorted(release.labels.items()):
        reasons.setdefault(version, []).append(label)
    for version in sorted(release.versions):
        reasons.setdefault(version, []).append("loaded")
    for record in records:
        pushed = record.summary.get("pushed_version")
        if record.run_id in kept and pushed is not None:
            reasons.setdefault(pushed, []).append("of a kept run")
    return {
        version: ", ".join(dict.fromkeys(found))
        for version, found in sorted(reasons.items())
        if version in present
    }


def _versions(serving_dir: Path, kept: Collection[int]) -> Iterator[Removable]:
    for version in sorted(_present_versions(serving_dir)):
        if version not in kept:
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
