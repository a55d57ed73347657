"""The model that answers: the stable version or, if none was promoted, the newest pushed one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components import files
from pipeline.errors import ReleaseError

if TYPE_CHECKING:  # slow to import
    from pipeline.config.project import PipelineConfig

# Folder in the project's runs for models that were built for inspection, by run ID.
CANDIDATES_FOLDER = "candidates"


@dataclass(frozen=True)
class AnsweringModel:
    """A retrieval model.

    Attributes:
        path: Folder of the SavedModel, or the address of a server that has it.
        version: Number of the pushed version; None for a model that was not pushed.
        reason: Why it answers, to show after the version: `stable`, `newest` or the run.
        run: ID of the run, if the model was named by it.
    """

    path: str
    version: int | None
    reason: str
    run: str | None = None

    def __str__(self) -> str:
        model = f"model version {self.version}" if self.version else ""
        if not model and self.run is None:
            model = f"model of {self.path}"  # the server chooses the version with each answer
        return ", ".join(filter(None, [model, self.reason]))


def answering_model(
    config: PipelineConfig, version: int | None = None, run: str | None = None
) -> AnsweringModel:
    """Return the model that answers by default, or that of a version or a run.

    Without a promotion, it is the newest pushed version. After one, it is the version with the
    label `stable`, even if newer versions have been pushed. A run may be given by the first
    characters of its ID. If its model was not pushed, it is built for inspection.

    Raises:
        ReleaseError: There is no such version or run, or nothing has been pushed.
    """
    if run is not None:
        return _model_of_run(config, run)
    pushed = pushed_versions(config.serving_dir)
    if version is None:
        version, reason = answering_version(config, pushed)
    else:
        reason = "as requested"
    if version not in pushed:
        newest = ", ".join(map(str, pushed[-5:])) or "none"
        raise ReleaseError(
            f"version {version} is not in {config.serving_dir}; the newest versions there: {newest}"
        )
    return AnsweringModel(f"{config.serving_dir}/{version}", version, reason)


def _model_of_run(config: PipelineConfig, run: str) -> AnsweringModel:
    # Imported here, because only this case needs TensorFlow and ML Metadata.
    from pipeline.releases.candidate_model import unpushed_model
    from pipeline.runs.history import find_run

    record = find_run(config, run)
    version = record.summary.get("pushed_version")
    if version in pushed_versions(config.serving_dir):
        reason = f"of run {record.run_id}"
        return AnsweringModel(f"{config.serving_dir}/{version}", version, reason, record.run_id)
    path = unpushed_model(config, record, config.run_dir / CANDIDATES_FOLDER / record.run_id)
    reason = f"model of run {record.run_id}, which was not pushed ({record.state})"
    return AnsweringModel(path, None, reason, record.run_id)


def answering_version(config: PipelineConfig, pushed: list[int]) -> tuple[int, str]:
    """Return the version that answers by default, and `stable` or `newest`.

    Raises:
        ReleaseError: Nothing has been pushed, or the model config file cannot be read.
    """
    stable = stable_version(config)
    if stable is not None:
        return stable, "stable"
    if not pushed:
        raise ReleaseError(
            f"nothing has been pushed to {config.serving_dir} yet; run `two-tower run --config "
            f"{config.name}` first"
        )
    return pushed[-1], "newest"


def other_stable_version(config: PipelineConfig, version: int) -> str:
    """Return a sentence if another version than a pushed one answers; else an empty text."""
    stable = stable_version(config)
    if stable in (None, version):
        return ""
    return (
        f"version {stable} answers, because it is the stable one; `two-tower promote --config "
        f"{config.name} --version {version}` replaces it"
    )


def stable_version(config: PipelineConfig) -> int | None:
    """Return the version with the label `stable` in the model config file, or None."""
    path = model_config_path(config)
    if files.is_remote(config.serving_dir) or not path.exists():
        return None
    from pipeline.releases.model_config_file import ModelConfigFile

    return ModelConfigFile(path, config.serving.model_name, config.serving_dir).release().stable


def model_config_path(config: PipelineConfig) -> Path:
    """Return the default path of the model config file, next to the folder of the versions."""
    return Path(config.serving_dir).parent / "models.config"


def pushed_versions(folder: str) -> list[int]:
    """Return the numbers of the complete versions in a folder, oldest first."""
    return sorted(
        int(name)
        for name in files.list_folder(folder)
        if name.isascii() and name.isdecimal() and files.exists(f"{folder}/{name}/saved_model.pb")
    )
