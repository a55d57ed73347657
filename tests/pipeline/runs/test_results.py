"""What runs without a record of ours came to: real ML Metadata, no TensorFlow."""

import json
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.config.project import PipelineConfig
from pipeline.runs.history import RunHistory
from pipeline.runs.metadata import open_store
from pipeline.runs.results import with_results
from tests.pipeline.runs.metadata_rows import MetadataRows
from tests.pipeline.two_clubs import Command

DONE, FAILED = mlmd.Execution.COMPLETE, mlmd.Execution.FAILED


def results(config: PipelineConfig) -> dict[str, dict[str, Any]]:
    store = open_store(config)
    records = with_results(store, RunHistory(store, config.name).records())
    return {record.run_id: record.to_json() for record in records}


def evaluation(folder: Path, hit_rate: float) -> str:
    folder.mkdir()
    report = {"metrics": {"model": {"hit_rate@10": hit_rate}}}
    (folder / "evaluation.json").write_text(json.dumps(report))
    return str(folder)


def test_a_run_of_another_orchestrator_is_told_by_its_artifacts(
    config: PipelineConfig, tmp_path: Path, two_tower: Command
) -> None:
    rows = MetadataRows(open_store(config), config.name)
    ingested = rows.add_execution("manual__1", "TimelineExampleGen", DONE)
    rows.add_output(ingested, "Examples", last_span="2026-11-20")
    rows.add_output(rows.add_execution("manual__1", "Transform", DONE), "Examples")
    rows.add_output(rows.add_execution("manual__1", "DriftGate", DONE), "components.SpanProfile")
    judged = rows.add_execution("manual__1", "RetrievalEvaluator", DONE)
    rows.add_output(judged, "ModelEvaluation", evaluation(tmp_path / "1", 0.25))
    rows.add_output(judged, "ModelBlessing", blessed=1)
    rows.add_output(rows.add_execution("manual__1", "IndexBuilder", DONE), "components.IndexReport")
    rows.add_output(rows.add_execution("manual__1", "Validator", DONE), "InfraBlessing", blessed=1)
    pusher = rows.add_execution("manual__1", "Pusher", DONE)
    rows.add_output(pusher, "PushedModel", pushed=1, pushed_version="17", newly_pushed=1)
    run = results(config)["manual__1"]
    assert (run["state"], run["span"]) == ("complete", "2026-11-20")
    assert run["metrics"] == {"model": {"hit_rate@10": 0.25}}
    assert run["gates"] == dict.fromkeys(("drift", "evaluation", "index", "server"), "passed")
    assert (run["blessed"], run["pushed_version"], run["newly_pushed"]) == (True, 17, True)
    path = str(tmp_path / "configs" / "clubs.yaml")
    (listed,) = json.loads(two_tower("runs", "--config", path, "--json").stdout)
    assert listed == run
    shown = two_tower("runs", "show", "manual", "--config", path).stdout
    assert "hit_rate@10 0.2500" in shown
    assert "version   17" in shown


def test_a_cached_evaluation_counts_and_not_that_of_an_earlier_model(
    config: PipelineConfig, tmp_path: Path
) -> None:
    rows = MetadataRows(open_store(config), config.name)
    first = rows.add_execution("1", "RetrievalEvaluator", DONE)
    refused = rows.add_output(first, "ModelBlessing", blessed=0)
    measured = rows.add_output(first, "ModelEvaluation", evaluation(tmp_path / "1", 0.1))
    second = rows.add_execution("2", "RetrievalEvaluator", DONE)
    blessed = rows.add_output(second, "ModelBlessing", blessed=1)
    again = rows.add_execution("3", "RetrievalEvaluator", mlmd.Execution.CACHED)
    for artifact in (refused, measured):
        rows.put_out(again, artifact)
    resolver = rows.add_execution("3", "tfx.dsl.components.common.resolver.Resolver", DONE)
    rows.put_out(resolver, blessed)
    rows.add_execution("3", "CandidateEmbedder", FAILED)
    found = results(config)
    assert found["3"]["gates"] == {"evaluation": "refused"}
    assert found["3"]["metrics"] == found["1"]["metrics"] == {"model": {"hit_rate@10": 0.1}}
    assert found["2"]["gates"] == {"evaluation": "passed"}


def test_runs_of_one_id_in_two_uses_keep_what_is_theirs(config: PipelineConfig) -> None:
    store = open_store(config)
    for name, version in ((config.name, "17"), ("another", "18")):
        rows = MetadataRows(store, name)
        pusher = rows.add_execution("scheduled__1", "Pusher", DONE)
        rows.add_output(pusher, "PushedModel", pushed=1, pushed_version=version, newly_pushed=0)
    assert results(config)["scheduled__1"]["pushed_version"] == 17
    # What was evaluated is gone, or never was.
    assert results(config)["scheduled__1"]["metrics"] is None
