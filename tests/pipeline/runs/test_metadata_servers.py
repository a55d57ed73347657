"""Runs whose memory is a database server, a real one where its program is installed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.file import load
from pipeline.runs.state import InputState
from pipeline.orchestrators.local.runner import Handle
from pipeline.runs.metadata import connection_config, open_store
from pipeline.runs.history import RunHistory
from tests.pipeline.runs import metadata_servers
from tests.pipeline.two_clubs import Command, write_two_clubs

pytestmark = pytest.mark.slow


INPUTS = InputState(span="3", files="f" * 64, settings="a\\b" * 9000, num_files=1)


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp(request.param)
    with getattr(metadata_servers, request.param)(folder) as section:
        yield section


def test_every_text_is_read_as_it_was_written(server: dict[str, Any], tmp_path: Path) -> None:
    use = load(str(write_two_clubs(tmp_path, metadata={**server, "database": "texts"})))
    connection = connection_config(use)
    texts = ['it\'s "q"', "é 😀", "50% _x $0", "a\nb\t", "a\\b", "\\", "＼b", "\\u00e9" * 50_000]
    with Handle(connection) as handle:
        kind = metadata_store_pb2.ExecutionType(name="T")
        type_id = handle.store.put_execution_type(kind)
        executions = [metadata_store_pb2.Execution(type_id=type_id) for _ in texts]
        for execution, text in zip(executions, texts, strict=True):
            execution.custom_properties["text"].string_value = text
        ids = handle.store.put_executions(executions)
    store = open_store(use)

    def read() -> list[str]:
        found = {execution.id: execution for execution in store.get_executions_by_id(ids)}
        assert all(set(execution.custom_properties) == {"text"} for execution in found.values())
        return [found[number].custom_properties["text"].string_value for number in ids]

    assert read() == texts
    # A short one takes the place of a long one, and the other way round.
    for execution, number, text in zip(executions, ids, reversed(texts), strict=True):
        execution.id = number
        execution.custom_properties["text"].string_value = text
    store.put_executions(executions)
    assert read() == texts[::-1]

    type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="T"))
    artifact = metadata_store_pb2.Artifact(type_id=type_id, uri="/é/a\\b", name="a\\b")
    store.put_artifacts([artifact])
    assert [found.name for found in store.get_artifacts_by_uri("/é/a\\b")] == ["a\\b"]
    assert store.get_artifact_by_type_and_name("T", "a\\b").uri == "/é/a\\b"


def test_what_is_asked_for_by_ids_comes_in_an_order_that_tfx_can_use(
    server: dict[str, Any], tmp_path: Path
) -> None:
    use = load(str(write_two_clubs(tmp_path, metadata={**server, "database": "orders"})))
    store = open_store(use)
    type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="T"))
    ids = store.put_artifacts([metadata_store_pb2.Artifact(type_id=type_id) for _ in range(20)])
    # A row that changes moves in PostgreSQL.
    store.put_artifacts([metadata_store_pb2.Artifact(id=ids[3], type_id=type_id, uri="moved")])
    assert [found.id for found in store.get_artifacts_by_id(ids)] == ids
    if server["backend"] == "postgresql":
        assert [found.id for found in store.get_artifacts_by_id(ids[::-1])] == ids[::-1]


def test_a_run_is_remembered_with_all_that_it_says(server: dict[str, Any], tmp_path: Path) -> None:
    use = load(str(write_two_clubs(tmp_path, metadata={**server, "database": "history"})))
    history = RunHistory(open_store(use), use.name)
    begun = history.begin("1", "run", INPUTS)
    ended = history.end(begun, "complete", "", {"metrics": {"é\\": 1.0}, "more": ["\\"] * 5000})
    (read,) = RunHistory(open_store(use), use.name).records()
    # ML Metadata writes numbers with six digits after the point.
    assert read.started_s == pytest.approx(ended.started_s, abs=1e-6)
    assert read.ended_s == pytest.approx(ended.ended_s, abs=1e-6)
    assert replace(read, started_s=ended.started_s, ended_s=ended.ended_s) == ended


@pytest.mark.long
def test_a_whole_run_is_made_skipped_listed_and_cleaned(
    server: dict[str, Any], tmp_path: Path, two_tower: Command
) -> None:
    config = write_two_clubs(tmp_path, metadata=server, training={"epochs": 3})
    content = yaml.safe_load(config.read_text())
    content["evaluation"]["min_lift"] = 0.0
    config.write_text(yaml.safe_dump(content))
    path = str(config)
    ran = two_tower("run", "--config", path, "--json")
    assert ran.returncode == 0, ran.stderr
    first = json.loads(ran.stdout)
    skipped = two_tower("run", "--config", path)
    assert skipped.returncode == 4, skipped.stderr
    assert f"served as version {first['pushed_version']}" in skipped.stdout
    forced = two_tower("run", "--config", path, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    states = json.loads(forced.stdout)["component_states"]
    assert states["Transform"] == states["Trainer"] == "cached"

    listed = two_tower("runs", "--config", path, "--json")
    assert listed.returncode == 0, listed.stderr
    runs = json.loads(listed.stdout)
    assert [run["state"] for run in runs] == ["complete", "complete"]
    assert listed.stderr == ""
    shown = two_tower("runs", "show", first["run_id"], "--config", path, "--json")
    assert "Trainer" in {found["component"] for found in json.loads(shown.stdout)["components"]}
    cleaned = two_tower("clean", "--config", path, "--keep", "1", "--yes", "--json")
    assert cleaned.returncode == 0, cleaned.stderr
    after = two_tower("run", "--config", path)
    assert after.returncode == 4, after.stderr
    assert not (tmp_path / "runs" / "clubs" / "metadata.sqlite").exists()
