"""A run that is a process for each component, here one after the other in this process."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline.orchestrators.target
from pipeline.config.file import load
from pipeline.orchestrators.local.runner import ComponentOutcome
from pipeline.runs.earlier_runs import ingestion_of_run
from pipeline.runs.run import run_single_component
from tests.pipeline.two_clubs import write_two_clubs

pytestmark = pytest.mark.slow
DAY_S = 86_400


def deliver(folder: Path, span: int) -> None:
    rows = [
        f"user {user},item é{(user + step) % 60},{span * DAY_S + 60 * user + step}"
        for user in range(40)
        for step in range(3)
    ]
    text = "\n".join(["user,item,time", *rows]) + "\n"
    (folder / f"events-{span}.csv").write_text(text, encoding="utf-8")


def report(gate: ComponentOutcome) -> dict[str, Any]:
    [profile] = gate.outputs["profile"]
    found: dict[str, Any] = json.loads((Path(profile.uri) / "drift_report.json").read_text())
    return found


def test_a_run_chooses_its_spans_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_two_clubs(
        tmp_path,
        events={"files": "events-{SPAN}.csv", "spans": {"window": 2}},
        drift={"action": "stop"},
    )
    content = yaml.safe_load(path.read_text())
    content["split"] = {"method": "temporal", "eval_from": "newest_span"}
    path.write_text(yaml.safe_dump(content))
    config = load(str(path))
    deliver(tmp_path, 1)
    deliver(tmp_path, 2)
    assert ingestion_of_run(config, "first") is None
    run_single_component(config, "TimelineExampleGen", "first")
    # It comes between two components, and is the choice of other runs only.
    deliver(tmp_path, 3)
    run_single_component(config, "TimelineExampleGen", "second")
    with monkeypatch.context() as patched:
        patched.setattr(
            pipeline.orchestrators.target,
            "fingerprint",
            lambda _: pytest.fail("it reads the files"),
        )
        for name in ("StatisticsGen", "ImportSchemaGen", "ExampleValidator"):
            run_single_component(config, name, "first")
        gate = run_single_component(config, "DriftGate", "first")
    assert report(gate)["span"] == "2"
    for name in ("StatisticsGen", "ImportSchemaGen", "ExampleValidator"):
        run_single_component(config, name, "second")
    second = report(run_single_component(config, "DriftGate", "second"))
    assert (second["span"], second["reference"], second["earlier"]) == ("3", "2", [])
    for run_id, expected in (("first", [1, 2]), ("second", [2, 3])):
        choice = ingestion_of_run(config, run_id)
        assert choice is not None
        assert choice.chosen_spans is not None
        assert [span.span for span in choice.chosen_spans.interactions] == expected
