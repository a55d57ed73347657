"""The requests of the real kfp client, recorded by a server on this machine."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import SubmitError
from pipeline.orchestrators.kubeflow.submit import (
    Server,
    cron_with_seconds,
    read_parameters,
    submit,
)
from tests.pipeline.orchestrators.kubeflow.recording_api import RecordingApi, recording_api

PACKAGE = Path(__file__).with_name("two_clubs.golden.yaml")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingApi]:
    pytest.importorskip("kfp.client", reason="needs the extra `kubeflow`")
    # The client writes settings to the home folder.
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with recording_api() as served:
        yield served


def submit_package(api: RecordingApi, **options: Any) -> Any:
    given = {"experiment": "nightly", "name": "clubs", "parameters": {}, **options}
    return submit(PACKAGE, Server(api.url, token="secret"), **given)


def test_a_run_is_created_in_a_new_experiment(api: RecordingApi) -> None:
    done = submit_package(api, parameters={"epochs": 3, "data_directory": "gs://logs"})
    assert (done.kind, done.identity) == ("run", "run-1")
    [experiment] = api.bodies("POST", "/experiments")
    assert experiment["display_name"] == "nightly"
    [run] = api.bodies("POST", "/runs")
    assert run["experiment_id"] == "experiment-1"
    assert run["display_name"] == "clubs"
    assert run["runtime_config"]["parameters"] == {"epochs": 3, "data_directory": "gs://logs"}
    assert set(api.authorizations) == {"Bearer secret"}
    sent = run["pipeline_spec"].get("pipeline_spec", run["pipeline_spec"])
    compiled = yaml.safe_load(PACKAGE.read_text())
    assert sent["root"]["dag"]["tasks"].keys() == compiled["root"]["dag"]["tasks"].keys()
    assert sent["deploymentSpec"] == compiled["deploymentSpec"]


def test_a_recurring_run_has_one_run_at_a_time_and_does_not_catch_up(
    api: RecordingApi,
) -> None:
    done = submit_package(api, cron="30 4 * * *")
    [run] = api.bodies("POST", "/recurringruns")
    assert run["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    # The API has an int64 as a string.
    assert int(run["max_concurrency"]) == 1
    assert run["no_catchup"] is True
    assert run["mode"] == "ENABLE"
    assert done.kind == "recurring run"
    assert not api.bodies("POST", "/runs")


def test_a_second_recurring_run_of_the_same_name_is_refused(api: RecordingApi) -> None:
    submit_package(api, cron="30 4 * * *")
    with pytest.raises(SubmitError, match=r"recurring-\d+\); give --replace"):
        submit_package(api, cron="30 5 * * *")
    submit_package(api, cron="30 5 * * *", name="other")
    assert len(api.recurring_runs) == 2


def test_a_recurring_run_is_replaced_after_the_new_one_exists(api: RecordingApi) -> None:
    first = submit_package(api, cron="30 4 * * *")
    second = submit_package(api, cron="30 5 * * *", replace=True)
    assert second.replaced == [first.identity]
    assert [run["recurring_run_id"] for run in api.recurring_runs] == [second.identity]
    api.refusal = 403
    with pytest.raises(SubmitError):
        submit_package(api, cron="30 6 * * *", replace=True)
    assert [run["recurring_run_id"] for run in api.recurring_runs] == [second.identity]


def test_a_refusal_and_an_unreachable_server_are_explained(api: RecordingApi) -> None:
    api.refusal = 429
    with pytest.raises(SubmitError, match=r"refused with status 429: .*no quota"):
        submit_package(api)
    with pytest.raises(SubmitError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        submit(PACKAGE, Server("http://127.0.0.1:9"), experiment="nightly", name="x", parameters={})


def test_parameters_have_the_declared_types() -> None:
    given = ["epochs=3", "data_directory=gs://a=b"]
    assert read_parameters(PACKAGE, given) == {"epochs": 3, "data_directory": "gs://a=b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=3", "one of data_directory, epochs; got 'epoch=3'"),
        ("epochs", "NAME=VALUE"),
        ("epochs=many", "epochs must be a whole number of at least 1, got 'many'"),
        ("epochs=0", "epochs must be a whole number of at least 1, got '0'"),
        ("data_directory=logs", "data_directory must be gs://…, or an absolute path"),
    ],
)
def test_an_invalid_parameter_is_refused(text: str, message: str) -> None:
    with pytest.raises(SubmitError, match=message):
        read_parameters(PACKAGE, [text])


def with_parameters(folder: Path, **declared: Any) -> Path:
    package = folder / "package.yaml"
    package.write_text(
        yaml.safe_dump({"root": {"inputDefinitions": {"parameters": declared}}}), encoding="utf-8"
    )
    return package


def test_a_span_is_newest_a_number_or_a_day(tmp_path: Path) -> None:
    package = with_parameters(tmp_path, span={"parameterType": "STRING"})
    for span in ("newest", "0017", "2026-11-20"):
        assert read_parameters(package, [f"span={span}"]) == {"span": span}
    for span in ("", "latest", "2026-13-01"):
        with pytest.raises(SubmitError, match="span must be newest, a number, or a day"):
            read_parameters(package, [f"span={span}"])


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    package = with_parameters(tmp_path, rate={"parameterType": "NUMBER_DOUBLE"})
    with pytest.raises(SubmitError, match="has the type NUMBER_DOUBLE"):
        read_parameters(package, ["rate=0.5"])
    package.write_text("a: 1\n")
    with pytest.raises(SubmitError, match="not a compiled pipeline"):
        read_parameters(package, [])


def test_cron_gets_a_field_for_seconds() -> None:
    assert cron_with_seconds("30 4 * * 1-5") == "0 30 4 * * 1-5"
    assert cron_with_seconds("15 30 4 * * *") == "15 30 4 * * *"
    with pytest.raises(SubmitError, match="five fields"):
        cron_with_seconds("@daily")


def test_without_kfp_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfp", None)
    with pytest.raises(SubmitError, match=r"deploy/kubeflow/requirements\.lock"):
        submit(PACKAGE, Server("http://x"), experiment="e", name="n", parameters={})
