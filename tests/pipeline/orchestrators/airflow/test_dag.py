"""The DAG in a real Airflow, in an environment of its own."""

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.two_clubs import ROOT, Command, write_two_clubs

pytestmark = pytest.mark.long
DAG_ID = "clubs"


def _airflow() -> Path:
    """Return the command of `.venv-airflow` or of the environment AIRFLOW_ENVIRONMENT."""
    command = (
        Path(os.environ.get("AIRFLOW_ENVIRONMENT", ROOT / ".venv-airflow")) / "bin" / "airflow"
    )
    if not command.exists():
        pytest.skip(f"{command} does not exist: see docs/airflow.md")
    return command


@dataclass(frozen=True)
class Airflow:
    command: Path
    environment: Mapping[str, str]
    project: Path

    def __call__(self, *arguments: str, timeout_s: float = 900) -> str:
        done = subprocess.run(
            [str(self.command), *arguments],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def task_states(self, run_type: str) -> dict[str, str]:
        """Return the state of each task of the newest run of a type."""
        with sqlite3.connect(Path(self.environment["AIRFLOW_HOME"]) / "airflow.db") as database:
            runs = database.execute(
                "SELECT run_id FROM dag_run WHERE dag_id = ? AND run_type = ? ORDER BY id DESC",
                (DAG_ID, run_type),
            ).fetchall()
            if not runs:
                return {}
            return dict(
                database.execute(
                    "SELECT task_id, state FROM task_instance WHERE dag_id = ? AND run_id = ?",
                    (DAG_ID, runs[0][0]),
                ).fetchall()
            )


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, two_tower: Command) -> Airflow:
    command = _airflow()
    folder = tmp_path_factory.mktemp("airflow")
    config = write_two_clubs(folder / "project")
    plans = folder / "plans"
    plans.mkdir()
    made = two_tower(
        *("compile", "--runner", "airflow", "--config", str(config)),
        *("--schedule", "* * * * *", "-o", str(plans / "clubs.two-tower.json")),
    )
    assert made.returncode == 0, made.stderr
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "deploy" / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
        "TWO_TOWER_PLANS": str(plans),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
    }
    served = Airflow(command, environment, folder / "project")
    served("db", "migrate")
    return served


def _versions(airflow: Airflow) -> list[str]:
    served = airflow.project / "runs" / DAG_ID / "serving" / "retrieval"
    return [path.name for path in served.iterdir() if path.name.isdecimal()]


def test_a_dag_run_pushes_a_model_that_answers(airflow: Airflow, two_tower: Command) -> None:
    assert "Import" not in airflow("dags", "list-import-errors", "-o", "plain")
    airflow("dags", "test", DAG_ID)
    plan = json.loads(
        (Path(airflow.environment["TWO_TOWER_PLANS"]) / "clubs.two-tower.json").read_text()
    )
    states = airflow.task_states("manual")
    assert states == {component["name"]: "success" for component in plan["components"]}
    assert len(_versions(airflow)) == 1
    config = airflow.project / "configs" / "clubs.yaml"
    asked = two_tower("recommend", "--config", str(config), "--json", "--query-id", "user 1")
    assert asked.returncode == 0, asked.stderr
    assert len(json.loads(asked.stdout)["candidates"]) > 0


def test_a_plan_that_cannot_be_read_leaves_the_others(airflow: Airflow) -> None:
    torn = Path(airflow.environment["TWO_TOWER_PLANS"]) / "torn.two-tower.json"
    torn.write_text('{"dag_id": "torn"')
    try:
        lines = airflow("dags", "list", "-o", "plain").splitlines()
        assert {DAG_ID, "torn"} <= {line.split()[0] for line in lines if line.split()}
    finally:
        torn.unlink()


def test_a_scheduled_run_pushes_the_same_model_once(airflow: Airflow) -> None:
    # A DAG can be unpaused once it is in the database.
    airflow("dags", "reserialize")
    airflow("dags", "unpause", DAG_ID)
    scheduler = subprocess.Popen(
        [str(airflow.command), "scheduler"],
        env=dict(airflow.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 900
        states: dict[str, str] = {}
        while time.monotonic() < deadline and set(states.values()) != {"success"}:
            time.sleep(5)
            states = airflow.task_states("scheduled")
            assert "failed" not in states.values(), states
        assert set(states.values()) == {"success"}, states
    finally:
        scheduler.terminate()
        scheduler.wait(60)
    assert len(_versions(airflow)) == 1
