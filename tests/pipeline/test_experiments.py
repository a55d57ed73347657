"""Experiments: runs that do not change what is served."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from pipeline.cli import run as run_command
from pipeline.cli.main import app
from pipeline.config.project import PipelineConfig
from pipeline.definition import create_components
from tests.builders import free_port, project, wait_for
from tests.pipeline.releases.fake_tensorflow_serving import FakeTensorFlowServing
from tests.pipeline.two_clubs import ROOT, TWO_TOWER, Command, run_to_summary, write_two_clubs


@pytest.mark.parametrize(
    ("arguments", "is_experiment", "may_be_skipped"),
    [
        ([], False, True),
        (["--span", "3"], False, True),
        (["--set", "training.epochs=1"], True, False),
        (["--name", "wide"], True, False),
        (["--no-push"], True, False),
        (["--set", "training.epochs=1", "--push"], False, True),
    ],
)
def test_overrides_and_names_make_experiments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    is_experiment: bool,
    may_be_skipped: bool,
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(run_command, "run_pipeline_command", lambda *_, **kept: given.update(kept))
    config = write_two_clubs(tmp_path, events={"files": "day-{SPAN}.csv"})
    done = CliRunner().invoke(app, ["run", "--config", str(config), *arguments])
    assert done.exit_code == 0, done.output
    assert given["is_experiment"] is is_experiment
    assert (given["skipped_status"] is not None) is may_be_skipped


def test_an_experiment_ends_before_the_components_that_others_rely_on(tmp_path: Path) -> None:
    def names(config: PipelineConfig, **options: bool) -> set[str]:
        return {node.id for node in create_components(config, **options)}

    config = project(tmp_path, "batch.enabled=true", "batch.k=5", events={"files": "events.csv"})
    every = names(config)
    assert every - names(config, push=False) == {"Pusher", "BatchRecommender"}


@pytest.mark.long
def test_experiments_and_refused_runs_can_be_tried_and_compared(
    tmp_path: Path, two_tower: Command
) -> None:
    config = str(write_two_clubs(tmp_path, batch={"enabled": True, "k": 5}))

    def run(*arguments: str, status: int = 0) -> dict[str, Any]:
        done = two_tower("run", "--config", config, "--json", *arguments)
        assert done.returncode == status, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def ask(command: str, *arguments: str) -> Any:
        done = two_tower(command, *arguments, "--config", config, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    impossible = "evaluation.min_metrics={hit_rate@10: 0.99}"
    refused = run("--set", impossible, "--push", status=3)
    tried = ask("recommend", "--query-id", "user 1", "-k", "5", "--run", refused["run_id"])
    assert len(tried["candidates"]) == 5
    assert "refused" in tried["model"]

    pushed = run()
    assert pushed["recommendations"]["num_queries"] == 240
    experiment = run("--set", "training.epochs=10", "--name", "brief")
    assert experiment["pushed_version"] is None
    assert [path.name for path in Path(pushed["serving_dir"]).iterdir()] == [
        str(pushed["pushed_version"])
    ]
    listed = {record["run_id"]: record for record in ask("runs")}
    assert listed[experiment["run_id"]]["name"] == "brief"
    assert listed[experiment["run_id"]]["overrides"] == ["training.epochs=10"]
    compared = ask("runs", "compare", pushed["run_id"], experiment["run_id"])
    assert compared["settings"] == {"training.epochs": [12, 10]}
    assert compared["differences"][0]["queries"] > 200
    interval = compared["differences"][0]["intervals"]["hit_rate@10"]
    ours, theirs = compared["metrics"]["hit_rate@10"]
    assert interval["low"] <= theirs - ours <= interval["high"]

    # The files, the command and the server have the same answers.
    report = ask("batch", "--output", str(tmp_path / "out"), "-k", "5")
    assert report["num_rows"] == 240 * 5
    answer = ask("recommend", "--query-id", "user 1", "-k", "5")
    assert answer["model_version"] == pushed["pushed_version"]
    wanted = [row["candidate_id"] for row in answer["candidates"]]
    for folder in (tmp_path / "out", Path(pushed["recommendations"]["folder"])):
        rows = pl.read_parquet(folder / "*.parquet").filter(pl.col("user") == "user 1")
        assert rows["item"].to_list() == wanted
        assert rows["model_version"].unique().to_list() == [pushed["pushed_version"]]
    ask("batch", "--output", str(tmp_path / "tried"), "-k", "5", "--run", experiment["run_id"])
    rows = pl.read_parquet(tmp_path / "tried" / "*.parquet")
    assert len(rows) == 240 * 5
    assert rows["model_version"].null_count() == len(rows)


@pytest.mark.long
def test_after_a_promotion_every_command_names_the_stable_version(
    tmp_path: Path, two_tower: Command
) -> None:
    config = str(write_two_clubs(tmp_path, events={"files": "events*.csv"}))
    stable = run_to_summary(two_tower, Path(config))["pushed_version"]
    with FakeTensorFlowServing({stable}).running() as target:
        done = two_tower("promote", "--config", config, "--target", target)
    assert done.returncode == 0, done.stderr

    (tmp_path / "events-new.csv").write_text("user,item,time\nuser 1,item é2,1000020000\n")
    done = two_tower("run", "--config", config)
    assert done.returncode == 0, done.stderr
    told = f"version {stable} answers, because it is the stable one"
    assert told in " ".join(done.stdout.split())
    port = free_port()
    flags = ["--config", config, "--port", str(port), "--rest-port", str(free_port())]
    command = [*TWO_TOWER, "serve", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            notes = [server.stderr.readline() for _ in range(2)]
            assert f"version {stable} answers to requests for the label stable" in notes[1]
            asked = ["--config", config, "--query-id", "user 1", "--json"]
            target = ["--target", f"127.0.0.1:{port}"]
            served = wait_for(lambda: two_tower("recommend", *asked, *target).stdout, 120)
        finally:
            server.terminate()
    answers = [json.loads(two_tower("recommend", *asked).stdout), json.loads(served)]
    assert [answer["model_version"] for answer in answers] == [stable, stable]
    assert answers[0]["candidates"] == answers[1]["candidates"]
    assert all("stable" in answer["model"] for answer in answers)
