"""The report of a real run, and its page in a real browser."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import run as run_command
from pipeline.cli.main import app
from pipeline.config.project import PipelineConfig
from pipeline.project import Report
from pipeline.report.charts import charts
from pipeline.report.page import render
from pipeline.report.verdict import verdict
from pipeline.runs.history import RunRecord
from tests.builders import HOSTILE
from tests.pipeline.two_clubs import write_two_clubs

pytestmark = pytest.mark.slow

A4_WIDTH = 718  # in CSS pixels, with margins of 1 cm


@pytest.fixture(scope="session")
def folder(finished_run: dict[str, Any]) -> Path:
    """The folder of the report of a whole run."""
    return Path(finished_run["report"]).parent


@pytest.fixture(scope="session")
def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def look(browser: Any, page_file: Path, width: int = 1280, scheme: str = "light") -> Any:
    """Open a page, check that it draws every chart without problems, and return it."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    places = page.locator("[data-chart]")
    for number in range(places.count()):
        places.nth(number).locator("svg").wait_for()
    assert problems == []
    assert requests == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    return page


def test_the_facts_are_those_of_the_artifacts(
    facts: dict[str, Any], folder: Path, finished_run: dict[str, Any]
) -> None:
    artifacts = folder.parents[1] / "artifacts"
    evaluations = (artifacts / "RetrievalEvaluator" / "evaluation").iterdir()
    # Other tests may have run the same project again, so the first one is meant.
    evaluation = min(evaluations, key=lambda found: int(found.name))
    assert facts["evaluation"] == json.loads((evaluation / "evaluation.json").read_text())
    assert facts["index"] == finished_run["index"]
    assert [found["epoch"] for found in facts["training"]["history"]] == list(range(1, 13))
    assert sum(facts["data"]["events_by_day"].values()) == facts["data"]["events"] == 240 * 14
    assert len(facts["latencies_ms"]) >= 8
    assert facts["settings"]["training.epochs"] == 12
    assert facts["changes"] == {"since": None, "settings": {}}
    kinds = [example["kind"] for example in facts["examples"]]
    assert kinds == [kind for kind in ("best", "worst", "random") for _ in range(4)]
    shown = {name for example in facts["examples"] for name in example["recommended"]}
    assert all(facts["items"][name]["name"].startswith("Thing number ") for name in shown)
    assert len(facts["map"]["points"]) == 60


def test_charts_have_the_values_of_the_evaluation(facts: dict[str, Any]) -> None:
    evaluation, found = facts["evaluation"], charts(facts)
    curve = found["curve_hit_rate"]["data"]["values"]
    assert {row["ranker"] for row in curve} == evaluation["metrics"].keys()
    for row in curve:
        cut, ranker = f"hit_rate@{row['k']}", row["ranker"]
        interval = evaluation["curves"][cut][ranker]
        assert row["value"] == evaluation["metrics"][ranker][cut]
        assert (row["low"], row["high"]) == (interval["low"], interval["high"])
        assert row["low"] <= row["value"] <= row["high"]
    slices = evaluation["slices"]
    for row in found["slices"]["data"]["values"]:
        name, value, number = re.fullmatch(r"(\w+): \W*(.+?)\W* · ([\d,]+)", row["slice"]).groups()  # type: ignore[union-attr]
        of_slice = slices[name][value]
        assert (number, row["queries"]) == (f"{of_slice['num_events']:,}", of_slice["num_queries"])
        assert row["value"] == of_slice["metrics"][row["ranker"]]["hit_rate@10"]


def test_the_page_shows_the_verdict_and_draws_every_chart(
    facts: dict[str, Any], folder: Path, chromium: Any
) -> None:
    assert (folder / "report.html").stat().st_size < 2_000_000
    page = look(chromium, folder / "report.html")
    evaluation = facts["evaluation"]
    text = page.inner_text("body")
    assert facts["verdict"]["sentence"] in text
    assert f"Version {facts['run']['pushed_version']} was pushed" in text
    for name, metrics in evaluation["metrics"].items():
        row = page.locator("tr", has=page.locator(f"th:text-is('{name}')"))
        assert f"{metrics['hit_rate@10']:.4f}" in row.inner_text()
        for metric in ("coverage@10", "novelty@10", "popularity_lift@10", "gini@10"):
            assert f"{metrics[metric]:.4f}" in row.inner_text()
        interval = evaluation["intervals"][name]
        assert f"{interval['low']:.4f} to {interval['high']:.4f}" in row.inner_text()
    for check in evaluation["gate"]["checks"]:
        assert check["text"] in text
    example = page.locator("#examples .card", has_text=facts["examples"][0]["query_id"]).first
    for item in facts["examples"][0]["recommended"]:
        assert facts["items"][item]["name"] in example.inner_text()
    card = page.inner_text("#card")
    assert "Recommend candidates (item) to queries (user)" in card
    assert "60 candidates, from 2001-09-09 to 2001-09-09" in card
    assert f"tensorflow {facts['versions']['tensorflow']}" in card
    drawn = page.eval_on_selector_all("[data-chart]", "all => all.map(e => e.dataset.chart)")
    wanted = {"curve_hit_rate", "slices", "list_coverage", "loss", "latency", "volume", "map"}
    assert wanted < set(drawn)
    assert page.locator("[data-chart=map] path").count() >= 60
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    page.set_viewport_size({"width": A4_WIDTH, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= A4_WIDTH
    assert page.pdf().startswith(b"%PDF")


def test_a_notebook_draws_the_report_inline(folder: Path, chromium: Any) -> None:
    page = chromium.new_page()
    page.set_content(Report(folder / "report.html")._repr_html_())
    inside = page.frame_locator("iframe")
    inside.locator("[data-chart=curve_hit_rate] svg").wait_for()
    assert "was pushed" in inside.locator(".verdict").inner_text()


def test_the_page_fits_a_telephone_in_the_dark(folder: Path, chromium: Any) -> None:
    page = look(chromium, folder / "report.html", width=360, scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(16, 21, 27)"
    line = page.locator("[data-chart=loss] path[stroke]").first
    assert line.evaluate("e => getComputedStyle(e).stroke") != "none"


def test_a_long_setting_of_a_failed_check_fits_a_telephone(
    facts: dict[str, Any], chromium: Any, tmp_path: Path
) -> None:
    refused = copy.deepcopy(facts)
    refused["run"] |= {"state": "refused", "gates": {"evaluation": "refused"}}
    setting = "evaluation.min_slice_metrics.feature_of_the_candidate.hit_rate@10"
    text = f"{setting.replace('.', '_')} is 0.1, but must be at least 0.2"
    refused["evaluation"]["gate"]["checks"] += [{"passed": False, "text": text, "setting": setting}]
    vocabularies = {setting: {"kept": 100_000, "new": 20_000, "gone": 3_000}}
    refused["warm_start"] = {"source": setting, "vocabularies": vocabularies}
    refused["verdict"] = verdict(refused)
    file = tmp_path / "report.html"
    file.write_text(render(refused), encoding="utf-8")
    page = look(chromium, file, width=360)
    assert page.locator(f"td code:text-is('{setting}')").is_visible()


def test_hostile_text_stays_text(facts: dict[str, Any], chromium: Any, tmp_path: Path) -> None:
    hostile = copy.deepcopy(facts)
    example = hostile["examples"][0]
    item = example["recommended"][0]
    hostile["items"][item] = {"name": HOSTILE, "fields": {"label": HOSTILE, "name": "plain"}}
    example |= {"query_id": HOSTILE, "features": {HOSTILE: HOSTILE}}
    hostile["map"] = {
        "feature": HOSTILE,
        "points": [
            {**point, "name": HOSTILE, "group": HOSTILE} for point in facts["map"]["points"]
        ],
    }
    slices = hostile["evaluation"]["slices"]
    slices[f"feature {HOSTILE}"] = {HOSTILE: slices["query"]["known"]}
    hostile["evaluation"]["ranking"] = {
        "served": True,
        "comparison": hostile["evaluation"]["best_baseline"],
        "num_candidates": 20,
        "recall": 0.5,
        "tasks": {
            HOSTILE: {
                "loss": "squared_error",
                "num_events": 1234,
                "metrics": {"model": {"rmse": 0.25}, "mean": {"rmse": None}},
            }
        },
    }
    hostile["rejected"] = [
        {"file": HOSTILE, "line": 1, "column": None, "value": HOSTILE, "reason": "bad"}
    ]
    hostile["data"]["rejected_rows"] = {"bad": 1}
    of_slices = [found["metrics"] for values in slices.values() for found in values.values()]
    measured = [hostile["evaluation"]["metrics"], hostile["evaluation"]["intervals"], *of_slices]
    for by_ranker in measured:
        by_ranker["last_blessed"] = by_ranker["model"]
    hostile["training"]["history"] = [
        {"epoch": n, "loss": 1 / n, "val_loss": 2 / n, "validation_metric": n} for n in (1, 2, 3)
    ]
    trials = [{"score": 0.1 * n, "values": {HOSTILE: n}} for n in (1, 2)]
    hostile["tuning"] = {"metric": "ndcg@10", "trials": trials, "best": trials[1]["values"]}
    trial = {"settings": {"leaves": 9, "reorder": 90}, "recall": 0.97, "query_us": 5.0}
    hostile["index"] |= {"trials": [trial], "settings": trial["settings"]}
    drifted = {"feature": HOSTILE, "measure": "share", "text": HOSTILE, "exceeded": True}
    drifted |= {"value": 0.5, "threshold": 0.1, "relation": "at most"}
    hostile["drift"] = {"reference": HOSTILE, "findings": [drifted]}
    importance = {HOSTILE: {"value": 0.1, "low": 0.05, "high": 0.2}}
    hostile["ranking"] = {"measured": {"importance": importance}, "crosses": {HOSTILE: 0.5}}
    vocabularies = {HOSTILE: {"kept": 1, "new": 2, "gone": 3}}
    hostile["warm_start"] = {"source": HOSTILE, "vocabularies": vocabularies}
    hostile["changes"] = {"since": HOSTILE, "settings": {HOSTILE: [None, HOSTILE]}}
    hostile["verdict"]["sentence"] = f"`{HOSTILE}`"
    hostile["warnings"] = [HOSTILE]
    file = tmp_path / "report.html"
    file.write_text(render(hostile), encoding="utf-8")
    page = look(chromium, file)
    drawn = set(page.eval_on_selector_all("[data-chart]", "all => all.map(e => e.dataset.chart)"))
    assert drawn == charts(hostile).keys()
    assert {"validation", "trials", "index", "drift", "importance", "crosses"} < drawn
    assert "last_blessed" in page.inner_text("[data-chart=curve_hit_rate]")
    assert page.locator("img").count() == 0
    assert page.locator(".verdict code").inner_text() == HOSTILE
    task = page.locator("table", has=page.locator("th:text-is('rmse')"))
    assert task.inner_text().split() == ["prediction", "rmse", "model", "0.2500", "mean", "–"]
    assert page.locator("#examples bdi", has_text=HOSTILE).count() >= 3
    # The colour of a point changes if its group is picked in the legend.
    page.locator("[data-chart=map] .role-legend-symbol path").first.click()


def test_the_page_shows_joins_rejected_rows_drift_and_changed_settings(
    facts: dict[str, Any], chromium: Any, tmp_path: Path
) -> None:
    row = {"file": "day.csv", "line": 42, "column": "time", "value": "soon", "reason": "not a time"}
    drifted = {"feature": "events", "measure": "number", "text": "their number", "exceeded": True}
    drifted |= {"value": 0.33, "threshold": 0.5, "relation": "at least"}
    shown = copy.deepcopy(facts)
    shown |= {
        "rejected": [row],
        "drift": {"reference": "day 9", "findings": [drifted]},
        "changes": {"since": "20261130", "settings": {"training.epochs": [40, 12]}},
    }
    shown["data"]["rejected_rows"] = {"not a time": 1}
    file = tmp_path / "report.html"
    file.write_text(render(shown), encoding="utf-8")
    page = look(chromium, file)
    rejected = page.locator("tr", has_text="day.csv").inner_text()
    assert rejected.split() == ["day.csv", "42", "time", "soon", "not", "a", "time"]
    assert "1 not a time" in page.inner_text("body")
    joins = page.locator("table", has_text="events without a row").inner_text()
    assert "0 of 3,360" in joins  # every event has a row of its item and of its user
    changed = page.locator("#next tr", has_text="training.epochs").first.inner_text()
    assert changed.split() == ["training.epochs", "40", "12"]
    drift = page.locator("figure", has=page.locator("[data-chart=drift]")).inner_text()
    assert "day 9" in drift
    assert "events" in drift


def test_the_page_of_a_failed_run_names_the_component_that_failed(facts: dict[str, Any]) -> None:
    nothing = {
        name: type(facts[name])()
        for name in ("evaluation", "training", "index", "data", "examples", "latencies_ms")
    }
    failed = {"component": "TimelineExampleGen", "state": "failed", "seconds": 2.5}
    run = {**facts["run"], "state": "failed", "problem": "TimelineExampleGen: <no> events"}
    stopped = {**facts, **nothing, "run": run, "components": [failed], "log": "/runs/1.log"}
    page = render({**stopped, "verdict": verdict(stopped)})
    assert "Failed: TimelineExampleGen: &lt;no&gt; events." in page
    why = page.partition('<section id="why">')[2].partition("</section>")[0]
    row = '<th>TimelineExampleGen</th><td class="fail">failed</td><td class="n">2.5</td>'
    assert row in why
    assert "/runs/1.log" in why
    assert "before its first component" in render({**stopped, "components": []})


def test_a_run_that_fails_before_its_first_component_has_a_report(tmp_path: Path) -> None:
    config = write_two_clubs(tmp_path)
    (tmp_path / "events.csv").unlink()
    done = CliRunner().invoke(app, ["run", "-c", str(config)])
    assert done.exit_code == 1, done.output
    (page,) = (tmp_path / "runs" / "clubs" / "reports").glob("*/report.html")
    assert page.as_uri() in " ".join(done.output.split())
    text = page.read_text(encoding="utf-8")
    assert "Failed: " in text
    assert "events.csv" in text
    assert "The run ended before its first component" in text


def test_the_command_writes_a_report_again_and_opens_it(
    folder: Path, finished_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = folder / "report.html"
    page.unlink()
    words = ["report", finished_run["run_id"], "-c", str(finished_run["config_path"])]
    done = CliRunner().invoke(app, [*words, "--no-open"])
    assert done.exit_code == 0, done.output
    assert page.as_uri() in done.output
    assert page.exists()
    assert opened == []
    assert CliRunner().invoke(app, words).exit_code == 0
    assert opened == [page.as_uri()]
    unknown = CliRunner().invoke(app, [*words[:1], "1999", *words[2:]])
    assert unknown.exit_code == 1
    assert "there is no run '1999'" in unknown.output


def test_a_report_that_fails_is_a_warning(
    config: PipelineConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Path:
        raise KeyError("gate")

    monkeypatch.setattr("pipeline.report.page.write_report", fail)
    record = RunRecord(config.name, "1", state="complete")
    assert run_command._report(config, record) is None
    assert "warning: the report cannot be written: KeyError: 'gate'" in capsys.readouterr().err
