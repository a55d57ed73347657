"""The history of runs and the check for new input, with a real ML Metadata."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.interactions.errors import IngestError
from pipeline.cli.runs import app as runs_app
from pipeline.cli.run import run_pipeline_command
from pipeline.config.file import load
from pipeline.config.project import PipelineConfig
from pipeline.orchestrators.target import Target
from pipeline.runs import history as run_history
from pipeline.runs.history import RunHistory, refreshed_through
from pipeline.runs.metadata import open_store
from pipeline.runs.state import input_state, refresh_state
from tests.pipeline.runs.metadata_rows import MetadataRows
from tests.pipeline.two_clubs import ROOT, Command, write_two_clubs

DONE, FAILED = mlmd.Execution.COMPLETE, mlmd.Execution.FAILED
SUMMARY = {
    "metrics": {"model": {"hit_rate@10": 0.5}},
    "gates": {"evaluation": "passed"},
    "pushed_version": 17,
}


def history(config: PipelineConfig) -> RunHistory:
    return RunHistory(open_store(config), config.name)


def states(config: PipelineConfig, **options: Any) -> dict[str, str]:
    return {r.run_id: r.state for r in history(config).records(**options)}


def complete(config: PipelineConfig, run_id: str = "1") -> None:
    """Record a complete run whose version is served."""
    runs = history(config)
    runs.end(runs.begin(run_id, "run", input_state(config)), "complete", "", SUMMARY)
    version = Path(config.serving_dir) / "17"
    version.mkdir(parents=True, exist_ok=True)
    (version / "saved_model.pb").write_text("")


def test_an_unfinished_run_was_killed_unless_the_lock_is_held(config: PipelineConfig) -> None:
    history(config).begin("1", "run", None)
    assert states(config) == {"1": "running"}
    assert states(config, is_locked=False) == {"1": "killed"}
    runs = history(config)
    runs.end(runs.begin("2", "index", None), "refused", "the gate", {})
    assert states(config) == {"1": "killed", "2": "refused"}
    assert runs.since_last_complete()[0] is None


def other_orchestrator(config: PipelineConfig) -> MetadataRows:
    return MetadataRows(open_store(config), config.name)


def test_a_run_of_another_orchestrator_is_complete_once_it_pushed(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = other_orchestrator(config)
    for run_id in ("between", "failed", "tried again", "complete", "refresh"):
        other.add_execution(run_id, "Trainer", DONE if run_id != "failed" else FAILED)
    other.add_execution("tried again", "CandidateEmbedder", FAILED)
    other.add_execution("tried again", "CandidateEmbedder", DONE)
    other.add_execution("complete", "Pusher", DONE)
    other.add_execution("refresh", "BlessedModel", DONE)
    other.add_execution("refresh", "Pusher", mlmd.Execution.CACHED)
    expected = {
        "between": "running",
        "failed": "failed",
        "tried again": "running",
        "complete": "complete",
        "refresh": "complete",
    }
    # No process holds the lock between two tasks.
    assert states(config, is_locked=False) == expected
    commands = {record.run_id: record.command for record in history(config).records()}
    assert [run_id for run_id, command in commands.items() if command == "index"] == ["refresh"]
    in_two_days = time.time() + 2 * 86_400
    monkeypatch.setattr(run_history.time, "time", lambda: in_two_days)
    assert states(config) == {**expected, "between": "killed", "tried again": "killed"}


def test_a_new_run_leaves_those_of_other_orchestrators_alone(config: PipelineConfig) -> None:
    other_orchestrator(config).add_execution("manual__1", "Trainer", mlmd.Execution.RUNNING)
    complete(config)
    assert states(config) == {"manual__1": "running", "1": "complete"}
    assert [c.name for c in open_store(config).get_contexts_by_type("two_tower_run")] == ["clubs/1"]


def begin_on(host: str, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a run on a machine of this name."""
    with monkeypatch.context() as there:
        there.setattr(run_history.socket, "gethostname", lambda: host)
        history(config).begin("1", "run", None)


def test_only_this_machines_runs_are_marked_as_killed(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_on("far", config, monkeypatch)
    (found,) = history(config).records(is_locked=False)
    assert (found.host, found.state) == ("far", "running")
    history(config).begin("2", "run", None)
    assert states(config) == {"1": "running", "2": "running"}
    assert states(config, is_locked=False) == {"1": "running", "2": "killed"}
    in_two_days = time.time() + 2 * 86_400
    monkeypatch.setattr(run_history.time, "time", lambda: in_two_days)
    assert states(config) == {"1": "killed", "2": "running"}


def test_a_record_without_a_host_belongs_to_this_machine(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_on("", config, monkeypatch)
    history(config).begin("2", "run", None)
    assert states(config)["1"] == "killed"


def test_a_run_whose_input_cannot_be_read_is_recorded(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = os.path.isfile

    def gone(path: str) -> bool:
        """Remove the events after they were listed, and nothing else: Jinja asks here too."""
        if Path(path).name != "events.csv":
            return is_file(path)
        Path(path).unlink(missing_ok=True)
        return True

    monkeypatch.setattr(os.path, "isfile", gone)
    with pytest.raises(IngestError, match=r"events.csv disappeared after it was listed"):
        run_pipeline_command(config, "run", skipped_status=0, as_json=False)
    monkeypatch.undo()
    (found,) = history(config).records()
    assert found.state == "failed"
    assert "events.csv disappeared" in found.problem


def test_a_run_folder_that_cannot_be_written_is_named(config: PipelineConfig) -> None:
    (config.run_dir / "lock").mkdir()
    with pytest.raises(OSError, match=str(config.run_dir)):
        run_pipeline_command(config, "run", as_json=False)
    (config.run_dir / "lock").rmdir()
    (config.run_dir / "logs").write_text("")
    with pytest.raises(OSError, match="logs"):
        run_pipeline_command(config, "run", as_json=False)
    (found,) = history(config).records()
    assert found.state == "failed"


def test_a_later_run_of_another_orchestrator_does_not_hide_the_last_complete_run(
    config: PipelineConfig,
) -> None:
    complete(config)
    time.sleep(0.002)  # ML Metadata counts in milliseconds
    other_orchestrator(config).add_execution("manual__1", "Pusher", DONE)
    assert list(states(config)) == ["1", "manual__1"]
    last = history(config).since_last_complete()[0]
    assert last is not None
    assert last.run_id == "1"


def test_a_record_is_read_as_it_was_written(config: PipelineConfig) -> None:
    complete(config)
    (record,) = history(config).records()
    assert (record.config, record.run_id, record.state) == ("clubs", "1", "complete")
    assert record.summary == SUMMARY
    assert record.started_s <= record.ended_s
    assert history(config).since_last_complete()[0] == record
    assert RunHistory(open_store(config), "another").records() == []


def test_a_run_is_shown_with_its_overrides_and_the_metric_of_its_gate(
    config: PipelineConfig, tmp_path: Path
) -> None:
    metrics = {"model": {"hit_rate@10": 0.5, "ndcg@5": 0.25}}
    runs = history(config)
    record = runs.begin("1", "run", None, overrides=["training.epochs=3", "runs=a b"])
    runs.end(record, "refused", "", {"gate_metric": "ndcg@5", "metrics": metrics})
    path = str(tmp_path / "configs" / "clubs.yaml")
    shown = CliRunner().invoke(runs_app, ["show", "1", "-c", path]).output
    assert "set       training.epochs=3 'runs=a b'\n" in shown
    assert "metric    ndcg@5 0.2500\n" in shown
    assert "model                ndcg@5 0.2500, hit_rate@10 0.5000" in shown
    (listed,) = json.loads(CliRunner().invoke(runs_app, ["-c", path, "--json"]).output)
    assert (listed["gate_metric"], listed["overrides"]) == ("ndcg@5", list(record.overrides))


def test_the_state_changes_with_a_file_a_setting_or_the_schema(
    config: PipelineConfig, tmp_path: Path
) -> None:
    before = input_state(config)
    assert input_state(config) == before
    events = tmp_path / "events.csv"
    os.utime(events, ns=(1, 1))
    assert input_state(config).files != before.files
    assert input_state(config).settings == before.settings
    path = str(tmp_path / "configs" / "clubs.yaml")
    assert input_state(load(path, ["training.epochs=3"])).settings != before.settings
    # Accepting a span once with other thresholds does not make the next run a new one.
    assert input_state(load(path, ["drift.max_churn=0.1"])).settings == before.settings
    (tmp_path / "schema" / "clubs" / "schema.pbtxt").write_text("")
    assert input_state(config).settings != before.settings


def test_a_run_is_skipped_at_once_if_nothing_is_new(
    config: PipelineConfig, tmp_path: Path
) -> None:
    complete(config)
    code = (
        "import sys; from pipeline.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as done: print(done.code, 'tensorflow' in sys.modules)"
    )
    path = str(tmp_path / "configs" / "clubs.yaml")

    def run(*options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, "run", "--config", path, *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run()
    *said, codes = done.stdout.splitlines()
    assert codes == "0 False", done.stderr
    assert "nothing new: 3 input files, settings and code are those of run 1" in said[0]
    assert "pushed as version 17" in said[0]
    answer = json.loads(run("--json").stdout.splitlines()[0])
    assert answer["skipped"] is True
    assert answer["same_as"]["pushed_version"] == 17
    other = (config.run_dir / "lock").open()
    fcntl.flock(other, fcntl.LOCK_EX)
    assert "another run of this configuration" in run("--quiet").stderr
    threading.Timer(3, other.close).start()
    done = run("--quiet", "--wait", "60")
    assert (done.stdout.split(), done.stderr) == (["0", "False"], "")
    assert other.closed


def test_a_refresh_by_a_newer_catalogue_is_not_undone(tmp_path: Path, two_tower: Command) -> None:
    path = write_two_clubs(
        tmp_path, events={"files": "day-{SPAN}.csv"}, candidates={"file": "items-{SPAN}.csv"}
    )
    for name in ("day-10", "day-11", "items-11"):
        (tmp_path / f"{name}.csv").write_text("")
    config = load(str(path))
    config.run_dir.mkdir(parents=True)
    complete(config)
    (tmp_path / "items-12.csv").write_text("")
    assert two_tower("run", "--config", str(path), "--detailed-exit-code").returncode == 4

    runs = history(config)
    refresh = runs.begin("2", "index", refresh_state(config))
    assert refresh.catalogue == "12"
    runs.end(refresh, "complete", "", {"pushed_version": 18})
    version = Path(config.serving_dir) / "18"
    version.mkdir()
    (version / "saved_model.pb").write_text("")
    done = two_tower("run", "--config", str(path))
    assert done.returncode == 0, done.stderr
    assert "which was pushed as version 18" in done.stdout

    # A run with a new version of the newest day keeps the new catalogue, and so do later runs.
    def catalogue(*overrides: str) -> int:
        chosen = Target(load(str(path), overrides)).ingest.chosen_spans
        assert chosen is not None
        assert chosen.candidates is not None
        return chosen.candidates.span

    (tmp_path / "day-11.csv").write_text("again")
    assert catalogue() == 12
    inputs = input_state(config, refreshed_through(config))
    assert inputs.catalogue == "12"
    runs.end(runs.begin("3", "run", inputs), "complete", "", {"pushed_version": 18})
    assert catalogue() == 12
    assert two_tower("run", "--config", str(path), "--detailed-exit-code").returncode == 4
    # A run of a fixed span reads the earlier catalogue.
    assert catalogue("events.spans.last=11") == 11


def test_a_run_with_a_missing_span_fails_at_once_and_is_recorded(
    tmp_path: Path, two_tower: Command
) -> None:
    path = write_two_clubs(tmp_path, events={"files": "day-{SPAN}.csv"})
    for span in (1, 3):
        (tmp_path / f"day-{span}.csv").write_text("user,item,time\nu,i,1\n")
    done = two_tower(
        "run", "--config", str(path), "--set", "events.spans.window=3", "--span", "3", timeout_s=30
    )
    assert done.returncode == 1
    assert "span 2 of 1 to 3 is missing" in done.stderr
    listed = two_tower("runs", "--config", str(path), "--json")
    (run,) = json.loads(listed.stdout)
    assert run["state"] == "failed"
    assert "span 2" in run["problem"]
    shown = two_tower("runs", "show", run["run_id"][:8], "--config", str(path))
    assert "failed" in shown.stdout
    assert "span 2 of 1 to 3 is missing" in shown.stdout
    unknown = two_tower("runs", "show", "x", "--config", str(path))
    assert unknown.returncode == 1
    assert "there is no run 'x' of clubs" in unknown.stderr


def test_listing_a_project_without_runs_creates_no_database(
    tmp_path: Path, two_tower: Command
) -> None:
    path = write_two_clubs(tmp_path)
    listed = two_tower("runs", "--config", str(path), "--json")
    assert json.loads(listed.stdout) == []
    assert not (tmp_path / "runs").exists()
