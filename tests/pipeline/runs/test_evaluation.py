"""Which run's outputs are taken: real ML Metadata, and nothing that was fitted."""


import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.config.project import PipelineConfig
from pipeline.errors import EvaluationError
from pipeline.runs.evaluation import newest_run_outputs
from pipeline.runs.metadata import open_store
from tests.pipeline.runs.metadata_rows import MetadataRows

_NEEDED = {"StatisticsGen": "statistics", "Trainer": "model"}


def outputs(config: PipelineConfig) -> dict[str, str]:
    root = f"{config.run_dir}/artifacts/"
    return {k: uri.removeprefix(root) for k, uri in newest_run_outputs(config, _NEEDED).items()}


def test_outputs_are_those_of_one_run_that_has_them_all(config: PipelineConfig) -> None:
    with pytest.raises(EvaluationError, match="no run of clubs has the outputs"):
        outputs(config)
    rows = MetadataRows(open_store(config), config.name)

    def add(run_id: str, *names: str) -> list[int]:
        """Add a run with new outputs such as `Trainer/model/7`."""
        execution = rows.add_execution(run_id, "any", mlmd.Execution.COMPLETE)
        folders = [config.run_dir / "artifacts" / name for name in names]
        for folder in folders:
            folder.mkdir(parents=True)
        return [rows.add_output(execution, "Any", str(folder)) for folder in folders]

    first = add("1", "StatisticsGen/statistics/1", "Trainer/model/2")
    _, model = add("2", "StatisticsGen/statistics/3", "Trainer/model/4")
    # Stopped before the fit; a refresh of the index, which is given the model of another run.
    add("3", "StatisticsGen/statistics/5")
    add("4", "StatisticsGen/statistics/6")
    refresh = rows.add_execution("4", "IndexBuilder", mlmd.Execution.COMPLETE)
    given = mlmd.Event(artifact_id=model, execution_id=refresh, type=mlmd.Event.INPUT)
    rows.store.put_events([given])
    assert outputs(config) == {
        "StatisticsGen": "StatisticsGen/statistics/3",
        "Trainer": "Trainer/model/4",
    }
    cached = rows.add_execution("5", "any", mlmd.Execution.CACHED)
    for artifact in first:
        rows.put_out(cached, artifact)
    assert outputs(config)["Trainer"] == "Trainer/model/2"
    (config.run_dir / "artifacts" / "StatisticsGen" / "statistics" / "1").rmdir()
    assert outputs(config)["Trainer"] == "Trainer/model/4"
