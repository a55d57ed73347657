from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from components.index_builder.config import IndexConfig
from components.index_builder.gate import check_index, to_json
from components.index_builder.index_report import IndexReport, trade_off_svg, write_report
from components.index_builder.tuning import Trial

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

TRIALS = tuple(
    Trial({"leaves": 10, "leaves_to_search": part, "reorder": reorder}, recall, 0.9, 3.0 * part, 0)
    for part, reorder, recall in [(1, 20, 0.5), (2, 20, 0.8), (2, 40, 0.96)]
)


def report(trials: tuple[Trial, ...]) -> IndexReport:
    return IndexReport(
        backend="scann",
        reason="the cheapest",
        k=10,
        recall=0.96,
        recall_target=0.95,
        hit_rate_exact=None,
        hit_rate=None,
        query_ms=0.2,
        num_candidates=300,
        dimension=8,
        num_recall_queries=10,
        num_tuning_queries=10,
        settings=TRIALS[-1].settings,
        build_s=0.1,
        gate=to_json(check_index(0.96, 0.0, IndexConfig())),
        trials=trials,
    )


def test_the_report_has_the_curve_and_the_gate(tmp_path: Path):
    write_report(report(TRIALS), str(tmp_path))
    read = json.loads((tmp_path / "index_report.json").read_text())
    assert [trial["recall"] for trial in read["trials"]] == [0.5, 0.8, 0.96]
    assert read["gate"]["passed"] is True
    assert read["hit_rate"] is None
    # Without trials there is no picture.
    (tmp_path / "none").mkdir()
    write_report(report(()), str(tmp_path / "none"))
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["index_report.json"]


def test_the_picture_marks_trials_and_the_chosen_settings(tmp_path: Path):
    write_report(report(TRIALS), str(tmp_path))
    text = (tmp_path / "trade_off.svg").read_text()
    for word in ("leaves 10, reorder 20", "leaves 10, reorder 40", "target", "chosen", "recall@10"):
        assert word in text
    write_report(report(TRIALS), str(tmp_path))
    assert (tmp_path / "trade_off.svg").read_text() == text  # reproducible
    picture = ElementTree.fromstring(text)
    # Three trials, the chosen one again, and none for the line of the target.
    dots = [node for node in picture.iter(f"{{{SVG}}}circle") if "dot" in node.get("class", "")]
    assert len(dots) == len(TRIALS) + 1
    labels = [node.text for node in picture.iter(f"{{{SVG}}}text")]
    assert {"2", "5", "10"} <= set(labels)  # microseconds, from 3 to 6
    # Nothing is loaded from the network.
    assert not [node for node in picture.iter() if node.get("src") or node.get(f"{{{XLINK}}}href")]


@pytest.mark.parametrize("query_us", [0.0, 1.0, 10.0, 99.99])
def test_a_single_trial_of_any_cost_is_drawn(query_us: float):
    trial = Trial({"leaves": 4, "blocks_to_search": 4}, 1.0, 1.0, query_us, 0)
    assert b"leaves 4" in trade_off_svg([trial], {}, 10, 0.95)
