"""Experiments: runs that do not change what is served."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import polars as pl
import pytest
from typer.testing import CliRunner

from pipeline.cli import run as run_command
from pipeline.cli.main import app
from pipeline.config.project import PipelineConfig
from pipeline.definition import create_components
from tests.builders import free_port, project, wait_for
from tests.pipeline.releases.fake_tensorflow_serving import FakeTensorFlowServing
from tests.pipeline.two_clubs import (
    ROOT,
    TWO_TOWER,
    Command,
    explorer,
    run_to_summary,
    write_two_clubs,
)


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


@pytest.fixture(scope="module")
def refused(finished_run: dict[str, Any], two_tower: Command) -> dict[str, Any]:
    """The summary of an experiment that is compared with the finished run and refused."""
    settings = ("--set", "training.epochs=1", "--set", "evaluation.min_lift_over_last=3")
    config = str(finished_run["config_path"])
    done = two_tower("run", "--config", config, "--json", "--name", "brief", *settings)
    assert done.returncode == 3, done.stderr
    assert "min_lift_over_last" in done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@pytest.mark.slow
class TestRefusedExperiment:
    def test_it_is_compared_with_the_last_blessed_model_and_changes_nothing_that_is_served(
        self, finished_run: dict[str, Any], refused: dict[str, Any]
    ) -> None:
        assert refused["metrics"]["last_blessed"] == finished_run["metrics"]["model"]
        assert refused["pushed_version"] is None
        versions = [path.name for path in Path(finished_run["serving_dir"]).iterdir()]
        assert versions == [str(finished_run["pushed_version"])]

    def test_it_is_listed_with_its_name_and_its_settings(
        self, finished_run: dict[str, Any], refused: dict[str, Any], two_tower: Command
    ) -> None:
        config = str(finished_run["config_path"])
        listed = json.loads(two_tower("runs", "--config", config, "--json").stdout)
        (record,) = (of for of in listed if of["run_id"] == refused["run_id"])
        assert record["name"] == "brief"
        assert record["overrides"] == ["training.epochs=1", "evaluation.min_lift_over_last=3"]
        heading, *rows = two_tower("runs", "--config", config).stdout.splitlines()
        assert {"name", "set"} <= set(heading.split())
        (row,) = (row for row in rows if refused["run_id"] in row)
        assert "brief" in row
        assert "training.epochs=1" in row

    def test_what_differs_from_another_run_is_measured(
        self, finished_run: dict[str, Any], refused: dict[str, Any], two_tower: Command
    ) -> None:
        runs = [finished_run["run_id"], refused["run_id"]]
        config = str(finished_run["config_path"])
        done = two_tower("runs", "compare", *runs, "--config", config, "--json")
        assert done.returncode == 0, done.stderr
        compared = json.loads(done.stdout)
        assert compared["settings"]["training.epochs"] == [12, 1]
        assert compared["settings"].keys() == {"training.epochs", "evaluation.min_lift_over_last"}
        (difference,) = compared["differences"]
        assert difference["queries"] > 200
        interval = difference["intervals"]["hit_rate@10"]
        ours, theirs = compared["metrics"]["hit_rate@10"]
        assert interval["low"] <= theirs - ours <= interval["high"]
        assert all(run["seconds"] > run["training_seconds"] > 0 for run in compared["runs"])
        assert [run["epochs"] for run in compared["runs"]] == [12, 1]

    def test_its_model_answers_on_the_command_line_and_in_the_explorer(
        self, finished_run: dict[str, Any], refused: dict[str, Any], two_tower: Command
    ) -> None:
        config, run = finished_run["config_path"], refused["run_id"]
        asked = ("--config", str(config), "--query-id", "user 1", "-k", "5", "--json")
        done = two_tower("recommend", *asked, "--run", run)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert len(answer["candidates"]) == 5
        assert answer["model_version"] is None
        assert answer["model"] == f"model of run {run}, which was not pushed (refused)"
        with (
            explorer(config, "--run", run) as address,
            urlopen(f"{address}?q={quote('user 1')}") as page,
        ):
            text = page.read().decode()
        assert answer["model"] in text
        _, _, shown = text.partition('id="answers"')
        places = [shown.index(f"<bdi>{row['candidate_id']}<") for row in answer["candidates"]]
        assert places == sorted(places)

    def test_its_report_shows_the_settings_that_differ(self, refused: dict[str, Any]) -> None:
        page = Path(refused["report"]).read_text("utf-8")
        changed = page.partition("Settings that differ from the previous run")[2]
        assert "<code>training.epochs</code></td>" in changed.partition("All settings")[0]


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
