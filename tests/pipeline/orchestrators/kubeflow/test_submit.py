"""The calls that the kfp client really makes, recorded by a server on this machine."""

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
    # The client keeps settings in the home folder.
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with recording_api() as served:
        yield served


def hand_over(api: RecordingApi, **options: Any) -> Any:
    given = {"experiment": "nightly", "name": "clubs", "parameters": {}, **options}
    return submit(PACKAGE, Server(api.url, token="secret"), **given)


def test_a_run_is_created_in_an_experiment_that_is_made(api: RecordingApi) -> None:
    done = hand_over(api, parameters={"epochs": 3, "data_directory": "gs://logs"})
    assert (done.kind, done.identity) == ("run", "run-1")
    [experiment] = api.bodies("POST", "/experiments")
    assert experiment["display_name"] == "nightly"
    [run] = api.bodies("POST", "/runs")
    assert run["experiment_id"] == "experiment-1"
    assert run["display_name"] == "clubs"
    assert run["runtime_config"]["parameters"] == {"epochs": 3, "data_directory": "gs://logs"}
    assert set(api.authorizations) == {"Bearer secret"}


def test_the_server_gets_the_compiled_pipeline_as_it_is(api: RecordingApi) -> None:
    hand_over(api)
    [run] = api.bodies("POST", "/runs")
    sent = run["pipeline_spec"].get("pipeline_spec", run["pipeline_spec"])
    compiled = yaml.safe_load(PACKAGE.read_text())
    assert sent["root"]["dag"]["tasks"].keys() == compiled["root"]["dag"]["tasks"].keys()
    assert sent["deploymentSpec"] == compiled["deploymentSpec"]


def test_a_recurring_run_keeps_its_hours_one_at_a_time_without_catching_up(
    api: RecordingApi,
) -> None:
    done = hand_over(api, cron="30 4 * * *")
    [run] = api.bodies("POST", "/recurringruns")
    assert run["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    # The API counts concurrent runs as a string: int64.
    assert int(run["max_concurrency"]) == 1
    assert run["no_catchup"] is True
    assert run["mode"] == "ENABLE"
    assert done.kind == "recurring run"
    assert not api.bodies("POST", "/runs")


def test_a_second_recurring_run_of_a_name_is_refused(api: RecordingApi) -> None:
    hand_over(api, cron="30 4 * * *")
    with pytest.raises(SubmitError, match=r"recurring-\d+\); give --replace"):
        hand_over(api, cron="30 5 * * *")
    hand_over(api, cron="30 5 * * *", name="other")
    assert len(api.recurring_runs) == 2


def test_a_recurring_run_is_replaced_when_the_new_one_is_there(api: RecordingApi) -> None:
    first = hand_over(api, cron="30 4 * * *")
    second = hand_over(api, cron="30 5 * * *", replace=True)
    assert second.replaced == [first.identity]
    assert [run["recurring_run_id"] for run in api.recurring_runs] == [second.identity]
    api.refusal = 403
    with pytest.raises(SubmitError):
        hand_over(api, cron="30 6 * * *", replace=True)
    assert [run["recurring_run_id"] for run in api.recurring_runs] == [second.identity]


def test_a_refusal_is_told_in_the_servers_words(api: RecordingApi) -> None:
    api.refusal = 429
    with pytest.raises(SubmitError, match=r"refused with status 429: .*no quota"):
        hand_over(api)


def test_a_server_that_is_not_there_is_told(api: RecordingApi) -> None:
    with pytest.raises(SubmitError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        submit(PACKAGE, Server("http://127.0.0.1:9"), experiment="nightly", name="x", parameters={})


def test_parameters_have_the_types_that_the_pipeline_declares() -> None:
    given = ["epochs=3", "data_directory=gs://a=b"]
    assert read_parameters(PACKAGE, given) == {"epochs": 3, "data_directory": "gs://a=b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=3", "one of data_directory, epochs; got 'epoch=3'"),
        ("epochs", "NAME=VALUE"),
        ("epochs=many", "epochs must be a whole number, got 'many'"),
        ("epochs=0", "epochs must be at least 1, got '0'"),
        ("data_directory=logs", "data_directory must be gs://…, or an absolute path"),
    ],
)
def test_an_impossible_parameter_is_refused(text: str, message: str) -> None:
    with pytest.raises(SubmitError, match=message):
        read_parameters(PACKAGE, [text])


def with_parameters(folder: Path, **declared: Any) -> Path:
    package = folder / "package.yaml"
    package.write_text(
        yaml.safe_dump({"root": {"inputDefinitions": {"parameters": declared}}}), encoding="utf-8"
    )
    return package


def test_a_span_is_written_as_in_the_data(tmp_path: Path) -> None:
    package = with_parameters(tmp_path, span={"parameterType": "STRING"})
    for span in ("newest", "0017", "2026-11-20"):
        assert read_parameters(package, [f"span={span}"]) == {"span": span}
    for span in ("", "latest", "2026-13-01"):
        with pytest.raises(SubmitError, match="span must be newest, a number, or a day"):
            read_parameters(package, [f"span={span}"])


def test_parameters_that_no_pipeline_of_ours_has_are_refused(tmp_path: Path) -> None:
    package = with_parameters(
        tmp_path, rate={"parameterType": "NUMBER_DOUBLE"}, old={"type": "INT"}
    )
    with pytest.raises(SubmitError, match="rate has the type NUMBER_DOUBLE"):
        read_parameters(package, ["rate=0.5"])
    with pytest.raises(SubmitError, match="old has the type None"):
        read_parameters(package, ["old=5"])


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("a: 1\n")
    with pytest.raises(SubmitError, match="not a compiled pipeline"):
        read_parameters(other, [])


def test_cron_gets_its_seconds() -> None:
    assert cron_with_seconds("30 4 * * 1-5") == "0 30 4 * * 1-5"
    assert cron_with_seconds("15 30 4 * * *") == "15 30 4 * * *"
    with pytest.raises(SubmitError, match="five fields"):
        cron_with_seconds("@daily")


def test_says_what_to_install_without_kfp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfp", None)
    with pytest.raises(SubmitError, match=r"deploy/kubeflow/requirements\.lock"):
        submit(PACKAGE, Server("http://x"), experiment="e", name="n", parameters={})
