"""A run that a gate stopped leaves a summary. The real runner runs one component."""

from pathlib import Path
from typing import Any

import pytest
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.pipeline import Pipeline

import pipeline.runs.run
from components.errors import DriftError
from pipeline.cli import display
from pipeline.config.file import load
from pipeline.config.project import PipelineConfig
from pipeline.orchestrators.local.runner import ComponentOutcome
from pipeline.runs.metadata import connection_config
from pipeline.runs.summary import RunSummary
from tests.pipeline.two_clubs import write_two_clubs

_REPORT: dict[str, Any] = {"span": "2", "reference": "1", "events": 7, "findings": [{"value": 0.5}]}


@component
def DriftGate() -> None:  # type: ignore[type-arg,unused-ignore]  # noqa: N802
    raise DriftError("span 2 has drifted from 1", _REPORT)


class Silence:
    def component_started(self, name: str, position: int, total: int) -> None: ...

    def component_finished(self, outcome: object) -> None: ...


def test_the_figures_of_a_span_that_stopped_a_run_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(str(write_two_clubs(tmp_path)))
    config.run_dir.mkdir(parents=True)

    def one_component(config: PipelineConfig, **options: Any) -> Pipeline:
        folder = str(config.run_dir / "artifacts")
        return Pipeline(config.name, folder, connection_config(config), [DriftGate()])

    monkeypatch.setattr(pipeline.runs.run, "create_pipeline", one_component)
    summary = pipeline.runs.run.run(config, "1", Silence())
    assert summary.drift == _REPORT
    assert summary.gates == {"drift": "refused"}
    assert summary.is_refused
    assert summary.to_json()["error"] == "DriftGate: span 2 has drifted from 1"


@pytest.mark.parametrize(("reference", "word"), [("1", "passed"), (None, "nothing to compare")])
def test_what_was_held_against_nothing_is_not_called_passed(
    reference: str | None, word: str
) -> None:
    summary = RunSummary("clubs", "1", "", drift={**_REPORT, "reference": reference})
    outcome = ComponentOutcome("DriftGate", "complete", 1.0, {})
    summary.fill({"DriftGate": outcome})
    assert summary.gates == {"drift": word}


@pytest.mark.parametrize(
    ("served", "tasks", "said"),
    [
        (True, {}, "ranking served: ndcg@10 of the ranked list less"),
        (False, {}, "ranking not served, the retriever alone is: ndcg@10 of the ranked list less"),
        (False, {"rating"}, "not served, its tasks are, in the order of the retriever: ndcg@10"),
    ],
)
def test_a_run_says_which_list_is_served_and_why(
    served: bool, tasks: set[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    interval = {"value": 0.01, "low": -0.02, "high": 0.04}
    quality = {"loss": "squared_error", "num_events": 9, "metrics": {"model": {"rmse": 0.5}}}
    display._say_ranking(
        {
            "confidence": 0.95,
            "ranking": {
                "served": served,
                "comparison": {"metric": "ndcg@10", "interval": interval},
                "tasks": dict.fromkeys(tasks, quality),
            },
        }
    )
    shown = capsys.readouterr()
    words = " ".join((shown.out + shown.err).split())
    assert said in words
    assert ("0.0100, 95% interval -0.0200 to 0.0400, which must be above 0" in words) is not served


def test_a_metric_without_a_value_is_shown_as_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    names = (*display._RANKING_METRICS, *display._LIST_METRICS)
    display.show_evaluation(
        {
            "metrics": {"model": {f"{name}@10": None for name in names}},
            "gate_metric": "hit_rate@10",
            "best_baseline": None,
            "cold": {"targets": 0.25, "hits": None},
            "left_out_baselines": {"newest": "there are no times", "ease": "there are too many"},
            "slices": {},
            "intervals": {"model": {"value": None, "low": None, "high": None}},
            "gate": {"blessed": False, "checks": [], "problems": ["no events"]},
            **dict.fromkeys(
                ("num_events", "num_queries", "num_candidates", "num_unknown_targets"), 0
            ),
            **{"protocol": "rolling", "exclude_seen": True, "confidence": 0.95, "model": "/m"},
        }
    )
    shown = capsys.readouterr()
    assert "model                –  – to –" in shown.out + shown.err
    assert "in the hits –, in the events 0.2500" in shown.out + shown.err
    assert "left out  newest: there are no times\n" in shown.out + shown.err
