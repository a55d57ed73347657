import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.two_clubs import ROOT, TWO_TOWER, Command, write_two_clubs

pytestmark = pytest.mark.slow

COMPONENTS = [
    "TimelineExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "RetrievalEvaluator",
    "CandidateEmbedder",
    "IndexBuilder",
    "ServingValidator",
    "Pusher",
]


def versions(summary: dict[str, Any]) -> list[str]:
    return sorted(path.name for path in Path(summary["serving_dir"]).iterdir())


def test_the_summary_has_the_results_of_a_run(finished_run: dict[str, Any]) -> None:
    assert finished_run["config"] == "clubs"
    assert finished_run["blessed"] is True
    assert finished_run["error"] is None
    baselines = {"popularity", "repeat_history", "item_knn", "svd", "ease"}
    assert set(finished_run["metrics"]) == {"model", *baselines}
    assert set(COMPONENTS) <= set(finished_run["component_seconds"])
    assert finished_run["index"]["backend"] == "exact"
    assert finished_run["index"]["recall"] == 1.0
    assert versions(finished_run) == [str(finished_run["pushed_version"])]
    # 11 of a user's 30 own items are seen, so knowing the club alone gives a hit rate of 10/19.
    assert finished_run["metrics"]["model"]["hit_rate@10"] > 0.4
    # Popularity has 49 unseen items to choose from.
    assert finished_run["metrics"]["popularity"]["hit_rate@10"] < 0.35
    logs = finished_run["config_path"].parents[1] / "runs" / "clubs" / "logs"
    log = (logs / f"{finished_run['run_id']}.log").read_text(encoding="utf-8")
    assert re.search(r"epoch 11/12  loss \d\.\d+  .*at most 0:00:\d\d left", log)


def test_a_forced_run_takes_everything_from_the_cache_and_pushes_nothing_new(
    finished_run: dict[str, Any], two_tower: Command
) -> None:
    done = two_tower("run", "--config", str(finished_run["config_path"]), "--force", "--json")
    again = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    states = dict(again["component_states"])
    assert states.pop("Pusher") == "complete"  # it checks the newest version itself
    assert again["newly_pushed"] is False
    assert states.pop("LastBlessedModel") == "complete"  # it never finds the model of this run
    assert set(states.values()) == {"cached"}
    assert again["pushed_version"] == finished_run["pushed_version"]
    assert again["metrics"] == finished_run["metrics"]
    assert versions(again) == [str(finished_run["pushed_version"])]


def test_a_run_is_skipped_if_nothing_is_new_and_the_first_one_is_listed(
    finished_run: dict[str, Any], two_tower: Command
) -> None:
    path = str(finished_run["config_path"])
    done = two_tower("run", "--config", path)
    assert done.returncode == 0, done.stderr
    assert f"pushed as version {finished_run['pushed_version']}" in done.stdout
    runs = json.loads(two_tower("runs", "--config", path, "--json").stdout)
    (first,) = (run for run in runs if run["run_id"] == finished_run["run_id"])
    assert first["state"] == "complete"
    assert first["gates"] == dict.fromkeys(("evaluation", "index", "server", "catalogue"), "passed")
    assert first["metrics"] == finished_run["metrics"]
    shown = json.loads(
        two_tower("runs", "show", first["run_id"], "--config", path, "--json").stdout
    )
    assert set(COMPONENTS) <= {found["component"] for found in shown["components"]}


def test_a_removed_version_is_pushed_again(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    served = Path(finished_run["serving_dir"])
    kept = tmp_path / "kept"
    shutil.move(served, kept)
    try:
        done = two_tower("run", "--config", str(finished_run["config_path"]), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pushed_version"] is not None
        assert len(list(served.iterdir())) == 1
    finally:
        shutil.rmtree(served, ignore_errors=True)
        shutil.move(kept, served)


def test_a_refused_model_ends_the_run_with_code_3_and_leaves_the_served_versions(
    finished_run: dict[str, Any], two_tower: Command
) -> None:
    before = versions(finished_run)
    impossible = ("--set", "evaluation.min_metrics={hit_rate@10: 0.99}")
    done = two_tower("run", "--config", str(finished_run["config_path"]), *impossible, "--json")
    assert done.returncode == 3
    assert versions(finished_run) == before
    summary = json.loads(done.stdout)
    assert "refused" in done.stderr
    assert "hit_rate@10" in done.stderr
    assert (summary["blessed"], summary["pushed_version"]) == (False, None)
    assert summary["gates"] == {"evaluation": "refused"}
    assert summary["metrics"]["model"]["hit_rate@10"] < 0.99
    # The report of a refused run names the gate, and what differs from the run before.
    page = Path(summary["report"])
    facts = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))
    verdict = facts["verdict"]["sentence"]
    assert verdict.startswith("Refused by the evaluation gate: hit_rate@10 is ")
    assert "must be at least 0.9900" in verdict
    assert facts["verdict"]["advice"]
    assert facts["changes"]["settings"]["evaluation.min_metrics.hit_rate@10"] == [None, 0.99]
    assert page.exists()


def test_data_that_breaks_the_schema_stops_the_run_by_name(
    tmp_path: Path, two_tower: Command
) -> None:
    config = write_two_clubs(tmp_path)
    users = tmp_path / "users.csv"
    users.write_text(users.read_text().replace("user 0,blue", "user 0,green"))
    done = two_tower("run", "--config", str(config))
    assert done.returncode == 1
    for part in ("ExampleValidator", "schema", "club", "green"):
        assert part in done.stderr
    (page,) = (tmp_path / "runs" / "clubs" / "reports").glob("*/report.html")
    assert "Failed: ExampleValidator: " in page.read_text(encoding="utf-8")
    assert not (tmp_path / "runs" / "clubs" / "serving").exists()


def test_bad_rows_stop_the_run_with_file_line_column_and_value(
    tmp_path: Path, two_tower: Command
) -> None:
    config = write_two_clubs(tmp_path)
    events = (tmp_path / "events.csv").read_text(encoding="utf-8").splitlines()
    events[41] = "user 2,item é31,yesterday"
    (tmp_path / "events.csv").write_text("\n".join(events) + "\n", encoding="utf-8")
    done = two_tower("run", "--config", str(config))
    assert done.returncode == 1
    for part in ("events.csv", "42", "time", "yesterday"):
        assert part in done.stderr


def test_a_run_killed_at_any_component_can_be_run_again_to_the_same_metrics(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    config = write_two_clubs(tmp_path, training={"checkpoint_every_s": 0})
    run_dir = tmp_path / "runs" / "clubs"
    for component in COMPONENTS:
        kill_at(component, config, run_dir)
        for version in (run_dir / "serving" / "retrieval").glob("[0-9]*"):
            # Only a push that ended before the kill is a version, and it is complete.
            assert component == "Pusher"
            assert files(version) == files(newest_export(run_dir)) | {"assets.extra/digest"}
    done = two_tower("run", "--config", str(config), "--force", "--json")
    assert done.returncode == 0, done.stderr
    runs = json.loads(two_tower("runs", "--config", str(config), "--json").stdout)
    states = [run["state"] for run in runs]
    # The Pusher may have ended before it was killed.
    assert states[0] == "complete"
    assert states.count("killed") >= len(COMPONENTS) - 1
    summary = json.loads(done.stdout)
    assert summary["metrics"] == finished_run["metrics"]
    assert summary["pushed_version"] is not None


def kill_at(component: str, config: Path, run_dir: Path) -> None:
    """Start a run, and kill all its processes as soon as the component has started."""
    folder = run_dir / "artifacts" / component
    before = executions(folder)
    process = subprocess.Popen(
        [*TWO_TOWER, "run", "--config", str(config)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while executions(folder) == before and process.poll() is None:
        assert time.monotonic() < deadline, f"{component} did not start"
        time.sleep(0.01)
    # The Pusher takes milliseconds, so it may end before the kill.
    assert process.poll() is None or component == "Pusher"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def newest_export(run_dir: Path) -> Path:
    exports = (run_dir / "artifacts" / "IndexBuilder").rglob("saved_model.pb")
    return max(exports, key=lambda path: path.stat().st_mtime).parent


def executions(folder: Path) -> set[Path]:
    return set(folder.glob("*/*")) | set(folder.glob(".system/executor_execution/*"))


def test_a_folder_instead_of_a_file_is_named(two_tower: Command, tmp_path: Path) -> None:
    config = write_two_clubs(tmp_path)
    done = two_tower("run", "--config", str(config), "--set", "events.files=configs")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "configs") in done.stderr


def test_a_catalogue_of_three_items_answers_a_request_for_ten(
    two_tower: Command, tmp_path: Path
) -> None:
    config = write_two_clubs(
        tmp_path,
        candidates={"file": None, "features": {}},
        evaluation={"ks": [1, 2], "baseline_metric": "hit_rate@1", "min_lift": 0},
        schema={"file": str(tmp_path / "three.pbtxt")},
    )
    schema = (tmp_path / "schema" / "clubs" / "schema.pbtxt").read_text()
    kept = [line for line in schema.splitlines() if "label" not in line and "price" not in line]
    (tmp_path / "three.pbtxt").write_text("\n".join(kept))
    events = ["user,item,time"]
    events += [f"user {u},item {(u + n) % 3},{1000 * n + u}" for u in range(60) for n in range(3)]
    (tmp_path / "events.csv").write_text("\n".join(events) + "\n")
    done = two_tower("run", "--config", str(config), "--json")
    assert done.returncode == 0, done.stderr
    asked = two_tower(
        "recommend", "--config", str(config), "--history", "item 1", "-k", "10", "--json"
    )
    assert asked.returncode == 0, asked.stderr
    found = {row["candidate_id"] for row in json.loads(asked.stdout)["candidates"]}
    assert found == {"item 0", "item 2"}
