"""A run on the terminal: a line for each component, progress while it works, a closing table."""

import logging
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline.cli.console import stdout
from pipeline.cli.evaluation_display import main_rankers, metrics_table

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.orchestrators.local.runner import ComponentOutcome
    from pipeline.runs.summary import RunSummary

_SHOWN_METRICS = ("hit_rate@", "ndcg@")
_PROGRESS_LOGGER = "two_tower.progress"


class RunDisplay(logging.Handler):
    """Draws a run on the terminal; observes the runner and the trainer's progress lines.

    Args:
        terminal: Where to draw; the process's own standard error goes to the log meanwhile.
        quiet: Whether to draw nothing.
    """

    def __init__(self, terminal: TextIO, *, quiet: bool = False) -> None:
        super().__init__()
        self._console = Console(file=terminal, highlight=False, quiet=quiet)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("[dim]{task.fields[line]}[/dim]"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("loading TensorFlow and TFX", total=None, line="")

    def __enter__(self) -> "RunDisplay":
        logging.getLogger(_PROGRESS_LOGGER).addHandler(self)
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger(_PROGRESS_LOGGER).removeHandler(self)
        self._progress.stop()

    def component_started(self, name: str, position: int, total: int) -> None:
        """Shows what is being done."""
        # A bar without a total moves to and fro until the component tells how far it is.
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(f"{position}/{total} {name}", total=None, line="")

    def component_finished(self, outcome: "ComponentOutcome") -> None:
        """Leaves a line for the component."""
        if outcome.state == "cached":
            self._console.print(f"  [dim]{outcome.name:<20} cached[/dim]")
        else:
            self._console.print(f"  {outcome.name:<20} {outcome.seconds:6.1f} s")

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a line of progress beside the component, and the bar where it tells how far."""
        self._progress.update(self._task, line=escape(record.getMessage()))
        fraction = getattr(record, "fraction", None)
        if fraction is not None:
            self._progress.update(self._task, total=1.0, completed=fraction)


def show_summary(summary: "RunSummary", config: "PipelineConfig", log_path: Path) -> None:
    """Prints the closing tables: metrics against the baselines, index, timings, paths."""
    console = stdout()
    plain: dict[str, Any] = {"soft_wrap": True, "markup": False}
    if summary.metrics:
        report = summary.evaluation
        names = [name for name in summary.metrics["model"] if name.startswith(_SHOWN_METRICS)]
        console.print(metrics_table(report, main_rankers(report), names))
    if summary.spans:
        console.print(f"{'spans':<10}{_spans_line(summary)}", **plain)
    for finding in drift_lines(summary):
        console.print(f"{'drift':<10}{finding}", **plain)
    if summary.tuning:
        console.print(f"{'tuning':<10}{_tuning_line(summary)}", **plain)
    if summary.warm_start:
        console.print(f"{'warm start':<11}{_warm_start_line(summary, config)}", **plain)
    if summary.index:
        index = summary.index
        console.print(
            f"index     {index['backend']}, {index['num_candidates']:,} candidates, "
            f"recall@{index['k']} {index['recall']:.3f}"
        )
        if index["backend"] == "exact" and index["reason"].startswith("exact, because"):
            # Not what was hoped for: slower, and it grows with the catalogue.
            console.print(f"          {index['reason']}", **plain)
    console.print(f"time      {summary.total_seconds:.1f} s")
    if summary.pushed_version is not None:
        verb = "pushed    version" if summary.newly_pushed else "serving   already version"
        console.print(f"{verb} {summary.pushed_version}", f"in {summary.serving_dir}", **plain)
    if summary.tuned_config is not None:
        console.print(f"tuned     {summary.tuned_config}", **plain)
    console.print(f"log       {log_path}", **plain)


def _spans_line(summary: "RunSummary") -> str:
    parts = []
    for source in ("interactions", "queries", "candidates"):
        if spans := summary.spans.get(source):
            first, last = spans[0]["span"], spans[-1]["span"]
            several = f"{first} to {last} ({len(spans)})" if len(spans) > 1 else last
            parts.append(several if source == "interactions" else f"{source} of {several}")
    if missing := summary.spans["missing"]:
        parts.append(f"missing {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    return ", ".join(parts)


def drift_lines(summary: "RunSummary") -> list[str]:
    """Returns a line for each measure of drift beyond its threshold, or one that none is."""
    if not summary.drift:
        return []
    earlier = summary.drift.get("earlier", [])
    exceeded = [
        f"span {report['span']}: {finding['text']}"
        for report in (*earlier, summary.drift)
        for finding in report["findings"]
        if finding["exceeded"]
    ]
    baseline = summary.drift["baseline"]
    if baseline is None and not exceeded:
        return ["no earlier span to compare with"]
    return exceeded or [f"none since span {baseline}"]


def _tuning_line(summary: "RunSummary") -> str:
    tuning = summary.tuning
    scores = [trial["score"] for trial in tuning["trials"] if trial["score"] is not None]
    failed = len(tuning["trials"]) - len(scores)
    best = ", ".join(f"{name} {value}" for name, value in tuning["best"].items())
    return (
        f"{len(tuning['trials'])} trials, {failed} failed; "
        f"{tuning['metric']} {min(scores):.4f} to {max(scores):.4f} with {best}"
    )


def _warm_start_line(summary: "RunSummary", config: "PipelineConfig") -> str:
    if summary.warm_start["source"] is None:
        return "no blessed model of earlier data: fitted from nothing"
    candidates = summary.warm_start["vocabularies"][config.columns.candidate_id]
    return (
        f"{candidates['kept']:,} candidates known, {candidates['new']:,} new, "
        f"{candidates['gone']:,} gone; from {summary.warm_start['source']}"
    )
