"""Runs whose ML Metadata is in a database server, if its program is installed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs.history import RunHistory
from pipeline.runs.metadata import open_store
from pipeline.runs.state import InputState
from tests.builders import project
from tests.pipeline.runs import metadata_servers
from tests.pipeline.two_clubs import Command, write_two_clubs

pytestmark = pytest.mark.slow


INPUTS = InputState(span="3", files="f" * 64, settings="a\\b" * 9000, num_files=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with metadata_servers.mysql(tmp_path_factory.mktemp("mysql")) as section:
        yield section


def test_a_run_record_is_read_as_it_was_written(server: dict[str, Any], tmp_path: Path) -> None:
    config = project(tmp_path, metadata={**server, "database": "history"})
    history = RunHistory(open_store(config), config.name)
    begun = history.begin("1", "run", INPUTS)
    ended = history.end(begun, "complete", "", {"metrics": {"é\\": 1.0}, "more": ["\\"] * 5000})
    (read,) = RunHistory(open_store(config), config.name).records()
    # ML Metadata writes numbers with six digits after the point.
    assert read.started_s == pytest.approx(ended.started_s, abs=1e-6)
    assert read.ended_s == pytest.approx(ended.ended_s, abs=1e-6)
    assert replace(read, started_s=ended.started_s, ended_s=ended.ended_s) == ended


@pytest.mark.long
def test_a_whole_run_is_made_skipped_listed_and_cleaned(
    server: dict[str, Any], tmp_path: Path, two_tower: Command
) -> None:
    evaluation = {"min_lift": 0.0}
    config = write_two_clubs(
        tmp_path, metadata=server, training={"epochs": 3}, evaluation=evaluation
    )
    path = str(config)
    ran = two_tower("run", "--config", path, "--json")
    assert ran.returncode == 0, ran.stderr
    first = json.loads(ran.stdout)
    skipped = two_tower("run", "--config", path)
    assert f"version {first['pushed_version']}" in skipped.stdout, skipped.stderr
    forced = two_tower("run", "--config", path, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    states = json.loads(forced.stdout)["component_states"]
    assert states["Transform"] == states["Trainer"] == "cached"

    listed = two_tower("runs", "--config", path, "--json")
    assert listed.returncode == 0, listed.stderr
    assert [run["state"] for run in json.loads(listed.stdout)] == ["complete", "complete"]
    shown = two_tower("runs", "show", first["run_id"], "--config", path, "--json")
    assert "Trainer" in {found["component"] for found in json.loads(shown.stdout)["components"]}
    cleaned = two_tower("clean", "--config", path, "--keep", "1", "--yes", "--json")
    assert cleaned.returncode == 0, cleaned.stderr
    assert "skipped" in two_tower("run", "--config", path, "--json").stdout
    assert not (tmp_path / "runs" / "clubs" / "metadata.sqlite").exists()
