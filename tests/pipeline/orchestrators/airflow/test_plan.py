import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config.file import load
from pipeline.errors import UnknownComponentError
from pipeline.orchestrators.airflow.plan import airflow_plan
from pipeline.runs.run import run_single_component
from tests.pipeline.two_clubs import write_two_clubs


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_clubs(tmp_path_factory.mktemp("clubs"))


def test_components_come_after_their_upstream_components(config_path: Path) -> None:
    overrides = ["training.warm_start=true", "model.dimension=4"]
    config = load(str(config_path), overrides)
    plan = json.loads(
        airflow_plan(config, config_path, overrides, ["/opt/my env/two-tower"], "30 4 * * *")
    )
    assert plan["dag_id"] == "clubs"
    assert plan["schedule"] == "30 4 * * *"
    assert plan["command"] == "'/opt/my env/two-tower'"
    assert plan["arguments"] == (
        f"--config {config_path} --set training.warm_start=true --set model.dimension=4"
    )
    done: set[str] = set()
    for component in plan["components"]:
        assert set(component["after"]) <= done, component
        done.add(component["name"])
    assert {"TimelineExampleGen", "PreviousModel", "Trainer", "Pusher"} <= done


def test_an_unknown_component_is_named_with_the_known_ones(config_path: Path) -> None:
    with pytest.raises(UnknownComponentError, match=r"no component 'Train'; known: .*Trainer"):
        run_single_component(load(str(config_path)), "Train", "run-1")


def test_a_plan_is_replaced_atomically(config_path: Path, tmp_path: Path) -> None:
    output, seen = tmp_path / "clubs.two-tower.json", tmp_path / "opened by Airflow"
    output.write_text("{}")
    seen.hardlink_to(output)
    words = ["compile", "--runner", "airflow", "--config", str(config_path), "-o", str(output)]
    done = CliRunner().invoke(app, [*words, "--set", f"runs={tmp_path / 'runs'}"])
    assert done.exit_code == 0, done.output
    assert json.loads(output.read_text())["dag_id"] == "clubs"
    assert seen.read_text() == "{}"
    assert not list(tmp_path.glob(".*"))


def test_the_command_reports_an_unreachable_metadata_server(
    config_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("secret")
    metadata = (
        "metadata={backend: mysql, host: 127.0.0.1, port: 9, database: runs, user: me, "
        f"password_file: {tmp_path / 'password'}}}"
    )
    words = ["component", "ImportSchemaGen", "--run-id", "1", "--config", str(config_path)]
    done = CliRunner().invoke(
        app, [*words, "--set", metadata, "--set", f"runs={tmp_path / 'runs'}"]
    )
    assert done.exit_code == 1
    assert "mysql at 127.0.0.1" in done.output
    assert isinstance(done.exception, SystemExit)
