"""The trade-off of an index, drawn: recall against the time of a query."""

import math
from collections.abc import Iterable, Sequence

import pygal
from pygal.style import DefaultStyle

from components.index_builder.tuning import Setting, Trial

# A curve for each value of these; along a curve more of the catalogue is searched.
_CURVES = ("leaves", "reorder")
# Marks of the time axis, in each power of ten.
_MARKS = (1, 2, 5)
_LEAST_US = 0.1  # What the clock may measure as nothing has no logarithm.


def trade_off_svg(trials: Sequence[Trial], chosen: Setting, k: int, recall_target: float) -> bytes:
    """Returns an SVG of all trials, the target, and the settings that were taken.

    The same arguments give the same bytes, and the picture asks for nothing from elsewhere.

    Args:
        trials: At least one.
        chosen: Settings of the index; those of no trial where it is exact instead.
        k: Of recall@k.
        recall_target: Drawn as a line.
    """
    marks = _time_marks(trial.query_us for trial in trials)
    picture = pygal.XY(
        style=DefaultStyle,
        width=960,
        height=600,
        js=[],  # pygal's tooltips are a script from its makers' site.
        legend_at_bottom=True,
        truncate_legend=-1,
        x_title="microseconds a query, in batches of 128",
        y_title=f"recall@{k} against exact search",
        # Pygal draws both axes of such a chart logarithmic, or neither.
        x_labels=[{"value": math.log10(mark), "label": f"{mark:,g}"} for mark in marks],
        xrange=(math.log10(marks[0]), math.log10(marks[-1])),
        x_value_formatter=lambda value: f"{10**value:,.1f} µs",
        value_formatter=lambda value: f"{value:.3f}",
    )
    picture.uuid = "trade-off"  # Else another at each call.
    names = [name for name in _CURVES if name in trials[0].settings]
    curves: dict[str, list[Trial]] = {}
    for trial in trials:
        label = ", ".join(f"{name} {trial.settings[name]:,}" for name in names)
        curves.setdefault(label, []).append(trial)
    for label, curve in curves.items():
        picture.add(label, [_point(trial) for trial in curve], dots_size=3)
    picture.add(
        "target",
        [(math.log10(mark), recall_target) for mark in (marks[0], marks[-1])],
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


def _time_marks(times_us: Iterable[float]) -> list[float]:
    """Returns the marks of an axis from before the shortest time to behind the longest."""
    times = [max(time, _LEAST_US) for time in times_us]
    first, last = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    marks = [mark * 10.0**power for power in range(first, last + 1) for mark in _MARKS]
    before = max(mark for mark in marks if mark <= min(times))
    behind = min(mark for mark in marks if mark >= max(times) and mark > before)
    return [mark for mark in marks if before <= mark <= behind]
