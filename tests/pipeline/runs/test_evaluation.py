"""Which run's outputs are taken: real ML Metadata, and nothing that was fitted."""

from pathlib import Path

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.project import PipelineConfig
from pipeline.config.file import load
from pipeline.errors import EvaluationError
from pipeline.runs.evaluation import newest_run_outputs
from pipeline.runs.metadata import open_store
from tests.pipeline.two_clubs import write_two_clubs

_NEEDED = {"StatisticsGen": "statistics", "Trainer": "model"}
_Event = metadata_store_pb2.Event


class Runs:
    """Writes runs as TFX does."""

    def __init__(self, config: PipelineConfig) -> None:
        self._artifacts = config.run_dir / "artifacts"
        self._store: MetadataStore = open_store(config)
        types = metadata_store_pb2
        self._run = self._store.put_context_type(types.ContextType(name="pipeline_run"))
        self._execution = self._store.put_execution_type(types.ExecutionType(name="any"))
        self._artifact = self._store.put_artifact_type(types.ArtifactType(name="Any"))

    def add(self, run_id: str, *outputs: str, given: tuple[str, ...] = ()) -> None:
        """Adds a run with outputs and inputs such as `Trainer/model/7`."""
        pairs = [
            (self._known(name), _Event(type=kind))
            for names, kind in ((outputs, _Event.OUTPUT), (given, _Event.INPUT))
            for name in names
        ]
        self._store.put_execution(
            metadata_store_pb2.Execution(type_id=self._execution),
            pairs,
            [metadata_store_pb2.Context(type_id=self._run, name=run_id)],
        )

    def _known(self, name: str) -> metadata_store_pb2.Artifact:
        folder = self._artifacts / name
        folder.mkdir(parents=True, exist_ok=True)
        found = self._store.get_artifacts_by_uri(str(folder))
        if found:
            return found[0]
        live = metadata_store_pb2.Artifact.LIVE
        return metadata_store_pb2.Artifact(
            type_id=self._artifact, uri=str(folder), state=live, name=name
        )


def outputs(config: PipelineConfig) -> dict[str, str]:
    root = f"{config.run_dir}/artifacts/"
    return {k: uri.removeprefix(root) for k, uri in newest_run_outputs(config, _NEEDED).items()}


def test_outputs_are_those_of_one_run_that_has_them_all(config: PipelineConfig) -> None:
    with pytest.raises(EvaluationError, match="no run of clubs has the outputs"):
        outputs(config)
    runs = Runs(config)
    runs.add("1", "StatisticsGen/statistics/1", "Trainer/model/2")
    runs.add("2", "StatisticsGen/statistics/3", "Trainer/model/4")
    # Stopped before the fit; a refresh of the index, which is given the model of another run.
    runs.add("3", "StatisticsGen/statistics/5")
    runs.add("4", "StatisticsGen/statistics/6", given=("Trainer/model/4",))
    assert outputs(config) == {
        "StatisticsGen": "StatisticsGen/statistics/3",
        "Trainer": "Trainer/model/4",
    }
    # From the cache.
    runs.add("5", "StatisticsGen/statistics/1", "Trainer/model/2")
    assert outputs(config)["Trainer"] == "Trainer/model/2"
    (config.run_dir / "artifacts" / "StatisticsGen" / "statistics" / "1").rmdir()
    assert outputs(config)["Trainer"] == "Trainer/model/4"
