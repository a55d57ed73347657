"""The report of an index as JSON, and a chart of recall against query time."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pygal
from pygal.style import DefaultStyle

from components import files
from components.index_builder.tuning import Setting, Trial

REPORT_FILE = "index_report.json"

PICTURE_FILE = "trade_off.svg"

# The chart has one curve per combination of these settings; the searched part grows along it.
_CURVES = ("leaves", "reorder")
# Ticks of the time axis within each power of ten.
_TICKS = (1, 2, 5)
_LEAST_US = 0.1  # zero has no logarithm


@dataclass(frozen=True)
class IndexReport:
    """The settings and measurements of an index.

    Attributes:
        backend: `exact`, `scann` or `partitioned`.
        reason: Why this backend and these settings were chosen.
        recall: Mean recall@k against exact search on the judging queries (`SampleQueries`).
        hit_rate_exact: hit_rate@k of exact search on held-out events; None if there are none.
        hit_rate: hit_rate@k of the index on these events; None if there are none.
        query_ms: Median time of a single query in milliseconds.
        num_recall_queries: Number of judging queries.
        num_tuning_queries: Number of tuning queries, none of which is a judging query.
        build_s: Seconds to choose, tune and build the index.
        trials: Settings tried by tuning, in order.
    """

    backend: str
    reason: str
    k: int
    recall: float
    recall_target: float
    hit_rate_exact: float | None
    hit_rate: float | None
    query_ms: float
    num_candidates: int
    dimension: int
    num_recall_queries: int
    num_tuning_queries: int
    settings: Setting
    build_s: float
    gate: Mapping[str, Any]
    trials: tuple[Trial, ...] = ()


def write_report(report: IndexReport, directory: str) -> None:
    """Write `index_report.json`, and `trade_off.svg` if there are trials."""
    files.write_text(os.path.join(directory, REPORT_FILE), json.dumps(asdict(report), indent=2))
    if report.trials:
        picture = trade_off_svg(report.trials, report.settings, report.k, report.recall_target)
        files.write_bytes(os.path.join(directory, PICTURE_FILE), picture)


def trade_off_svg(trials: Sequence[Trial], chosen: Setting, k: int, recall_target: float) -> bytes:
    """Return an SVG chart of recall against query time, with all trials, the target and the choice.

    The same trials give the same bytes. The chart loads nothing from the network.
    """
    ticks = _time_ticks(trial.query_us for trial in trials)
    picture = pygal.XY(
        style=DefaultStyle,
        width=960,
        height=600,
        js=[],  # by default, pygal loads a script for tooltips from the network
        legend_at_bottom=True,
        truncate_legend=-1,
        x_title="microseconds per query, in batches of 128",
        y_title=f"recall@{k} against exact search",
        # pygal cannot make only one axis logarithmic, so the values are logarithms.
        x_labels=[{"value": math.log10(tick), "label": f"{tick:,g}"} for tick in ticks],
        xrange=(math.log10(ticks[0]), math.log10(ticks[-1])),
        x_value_formatter=lambda value: f"{10**value:,.1f} µs",
        value_formatter=lambda value: f"{value:.3f}",
    )
    picture.uuid = "trade-off"  # random by default
    names = [name for name in _CURVES if name in trials[0].settings]
    curves: dict[str, list[Trial]] = {}
    for trial in trials:
        label = ", ".join(f"{name} {trial.settings[name]:,}" for name in names)
        curves.setdefault(label, []).append(trial)
    for label, curve in curves.items():
        picture.add(label, [_point(trial) for trial in curve], dots_size=3)
    picture.add(
        "target",
        [(math.log10(tick), recall_target) for tick in (ticks[0], ticks[-1])],
        show_dots=False,
        stroke_style={"dasharray": "6, 6"},
    )
    taken = [_point(trial) for trial in trials if trial.settings == chosen]
    if taken:
        picture.add("chosen", taken, stroke=False, dots_size=8)
    drawn: bytes = picture.render()
    return drawn


def _point(trial: Trial) -> tuple[float, float]:
    return math.log10(max(trial.query_us, _LEAST_US)), trial.recall


def _time_ticks(times_us: Iterable[float]) -> list[float]:
    """Return ticks from just below the shortest time to just above the longest."""
    times = [max(time, _LEAST_US) for time in times_us]
    first, last = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    ticks = [tick * 10.0**power for power in range(first, last + 1) for tick in _TICKS]
    below = max(tick for tick in ticks if tick <= min(times))
    above = min(tick for tick in ticks if tick >= max(times) and tick > below)
    return [tick for tick in ticks if below <= tick <= above]
