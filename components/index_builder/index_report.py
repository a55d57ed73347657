"""The report of an index as JSON, and a chart of recall against query time."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import pygal
from pygal.style import DefaultStyle

from components import files

REPORT_FILE, PICTURE_FILE = "index_report.json", "trade_off.svg"

# The chart has one curve per combination of these settings; the searched part grows along it.
_CURVES = ("leaves", "reorder")
_LEAST_US = 0.1  # zero has no logarithm


def write_report(report: Mapping[str, Any], directory: str) -> None:
    """Write `index_report.json`, and `trade_off.svg` if there are trials.

    The content of the report is documented in docs/index.md.
    """
    text = json.dumps(report, indent=2, allow_nan=False)
    files.write_text(os.path.join(directory, REPORT_FILE), text)
    if report["trials"]:
        files.write_bytes(os.path.join(directory, PICTURE_FILE), trade_off_svg(report))


def trade_off_svg(report: Mapping[str, Any]) -> bytes:
    """Return an SVG chart of recall against query time, with all trials, the target and the choice.

    The same trials give the same bytes. The chart loads nothing from the network.
    """
    trials, recall_target = report["trials"], report["recall_target"]
    picture = pygal.XY(
        style=DefaultStyle,
        width=960,
        height=600,
        js=[],  # by default, pygal loads a script for tooltips from the network
        legend_at_bottom=True,
        truncate_legend=-1,
        x_title="microseconds per query, in batches of 128",
        y_title=f"recall@{report['k']} against exact search",
        # pygal cannot make only one axis logarithmic, so the values are logarithms.
        x_value_formatter=lambda value: f"{10**value:,.1f}",
        value_formatter=lambda value: f"{value:.3f}",
    )
    picture.uuid = "trade-off"  # random by default
    names = [name for name in _CURVES if name in trials[0]["settings"]]
    curves: dict[str, list[tuple[float, float]]] = {}
    for trial in trials:
        label = ", ".join(f"{name} {trial['settings'][name]:,}" for name in names)
        curves.setdefault(label, []).append(_point(trial))
    for label, curve in curves.items():
        picture.add(label, curve, dots_size=3)
    picture.add(
        "target",
        [(end(map(_point, trials))[0], recall_target) for end in (min, max)],
        show_dots=False,
        stroke_style={"dasharray": "6, 6"},
    )
    taken = [_point(trial) for trial in trials if trial["settings"] == report["settings"]]
    if taken:
        picture.add("chosen", taken, stroke=False, dots_size=8)
    drawn: bytes = picture.render()
    return drawn


def _point(trial: Mapping[str, Any]) -> tuple[float, float]:
    return math.log10(max(trial["query_us"], _LEAST_US)), trial["recall"]
