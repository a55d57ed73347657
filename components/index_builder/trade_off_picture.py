"""The trade-off of an index, drawn: recall against the time of a query."""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from components.index_builder.tuning import Setting, Trial

# A curve for each value of these; along a curve more of the catalogue is searched.
_CURVES = ("leaves", "reorder")
# Element ids that depend on nothing but the drawing.
_SVG = {"svg.hashsalt": "trade-off", "svg.fonttype": "none"}


def trade_off_svg(trials: Sequence[Trial], chosen: Setting, k: int, recall_target: float) -> bytes:
    """Returns an SVG of all trials, the target, and the settings that were taken.

    Args:
        trials: At least one.
        chosen: Settings of the index; those of no trial where it is exact instead.
        k: Of recall@k.
        recall_target: Drawn as a line.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    names = [name for name in _CURVES if name in trials[0].settings]
    curves: dict[str, list[Trial]] = {}
    for trial in trials:
        label = ", ".join(f"{name} {trial.settings[name]:,}" for name in names)
        curves.setdefault(label, []).append(trial)
    for label, curve in curves.items():
        axes.plot(
            [trial.query_us for trial in curve],
            [trial.recall for trial in curve],
            marker="o",
            label=label,
        )
    axes.axhline(recall_target, color="grey", linestyle="--", label="target")
    for trial in trials:
        if trial.settings == chosen:
            axes.scatter(
                [trial.query_us], [trial.recall], s=200, facecolors="none", edgecolors="black",
                label="chosen", zorder=3,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("microseconds a query, in batches of 128")
    axes.set_ylabel(f"recall@{k} against exact search")
    axes.grid(alpha=0.3)
    axes.legend()
    drawn = io.BytesIO()
    with mpl.rc_context(_SVG):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
