from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from components.index_builder.index_report import trade_off_svg, write_report

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

TRIALS = [
    {
        "settings": {"leaves": 10, "leaves_to_search": part, "reorder": reorder},
        "recall": recall,
        "query_us": 3.0 * part,
    }
    for part, reorder, recall in [(1, 20, 0.5), (2, 20, 0.8), (2, 40, 0.96)]
]


def report(trials: list[dict[str, Any]]) -> dict[str, Any]:
    settings = TRIALS[-1]["settings"]
    return {"k": 10, "recall_target": 0.95, "settings": settings, "trials": trials}


def test_the_report_is_json_with_all_trials(tmp_path: Path):
    write_report(report(TRIALS), str(tmp_path))
    assert json.loads((tmp_path / "index_report.json").read_text()) == report(TRIALS)


def test_the_picture_is_reproducible(tmp_path: Path):
    pictures = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(report(TRIALS), str(tmp_path / name))
        pictures.append((tmp_path / name / "trade_off.svg").read_text())
    assert pictures[0] == pictures[1]
    for text in ("leaves 10, reorder 20", "leaves 10, reorder 40", "target", "chosen", "recall@10"):
        assert text in pictures[0]


def test_the_picture_marks_trials_and_the_chosen_settings(tmp_path: Path):
    write_report(report(TRIALS), str(tmp_path))
    picture = ElementTree.parse(tmp_path / "trade_off.svg")
    # Three trials, the chosen one again, and none for the line of the target.
    dots = [node for node in picture.iter(f"{{{SVG}}}circle") if "dot" in node.get("class", "")]
    assert len(dots) == len(TRIALS) + 1
    # Nothing is loaded from the network.
    assert not [node for node in picture.iter() if node.get("src") or node.get(f"{{{XLINK}}}href")]


@pytest.mark.parametrize("query_us", [0.0, 1.0, 10.0, 99.99])
def test_a_single_trial_of_any_cost_is_drawn(query_us: float):
    settings = {"leaves": 4, "blocks_to_search": 4}
    trial = {"settings": settings, "recall": 1.0, "query_us": query_us}
    assert b"leaves 4" in trade_off_svg(report([trial]))


def test_without_trials_there_is_no_picture(tmp_path: Path):
    write_report(report([]), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["index_report.json"]
