"""Terminal output of a run (progress and summary) and of an evaluation (tables)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.cli.output import new_table, print_table, say

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.orchestrators.local.runner import ComponentOutcome
    from pipeline.runs.summary import RunSummary

_PROGRESS_LOGGER = "two_tower.progress"
_SUMMARY_METRICS = ("hit_rate@", "ndcg@")
_RANKING_METRICS = ("hit_rate", "ndcg", "mrr")
_LIST_METRICS = ("coverage", "gini", "novelty", "popularity_lift")


class RunDisplay(logging.Handler):
    """Progress of a run on the terminal: a bar for the running component, a line per finished one.

    Args:
        terminal: Stream of the terminal. It is not `sys.stderr`, which goes to the log file.
        quiet: Whether to suppress all output.
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
        """Show a progress bar for a component."""
        # A bar without a total pulses until the component reports a fraction.
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(f"{position}/{total} {name}", total=None, line="")

    def component_finished(self, outcome: "ComponentOutcome") -> None:
        """Print the name of a component and its time in seconds, or `cached`."""
        if outcome.state == "cached":
            self._console.print(f"  [dim]{outcome.name:<20} cached[/dim]")
        else:
            self._console.print(f"  {outcome.name:<20} {outcome.seconds:6.1f} s")

    def emit(self, record: logging.LogRecord) -> None:
        """Show a progress message, and update the bar if the record has a `fraction`."""
        self._progress.update(self._task, line=escape(record.getMessage()))
        fraction = getattr(record, "fraction", None)
        if fraction is not None:
            self._progress.update(self._task, total=1.0, completed=fraction)


def show_summary(summary: "RunSummary", config: "PipelineConfig", log_path: Path) -> None:
    """Print the summary of a run: metrics, spans, drift, index, time and paths."""
    if summary.metrics:
        names = [name for name in summary.metrics["model"] if name.startswith(_SUMMARY_METRICS)]
        print_table(_metrics_table(summary.evaluation, names), title=_title(summary.evaluation))
    if summary.spans:
        say(f"{'spans':<10}{_spans_line(summary)}")
    for finding in drift_lines(summary):
        say(f"{'drift':<10}{finding}")
    if summary.tuning:
        say(f"{'tuning':<10}{_tuning_line(summary)}")
    if summary.warm_start:
        say(f"{'warm start':<11}{_warm_start_line(summary, config)}")
    if summary.index:
        index = summary.index
        say(
            f"index     {index['backend']}, {index['num_candidates']:,} candidates, "
            f"recall@{index['k']} {index['recall']:.3f}"
        )
        if index["backend"] == "exact" and index["reason"].startswith("exact, because"):
            # Warn about a fallback to exact search: its latency grows with the catalogue.
            say(f"          {index['reason']}")
    say(f"time      {summary.total_seconds:.1f} s")
    if summary.pushed_version is not None:
        verb = "pushed    version" if summary.newly_pushed else "serving   already version"
        say(f"{verb} {summary.pushed_version} in {summary.serving_dir}")
    if summary.tuned_config is not None:
        say(f"tuned     {summary.tuned_config}")
    say(f"log       {log_path}")


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
    """Return a line per drift measure above its threshold, or one line if there is none."""
    if not summary.drift:
        return []
    earlier = summary.drift.get("earlier", [])
    exceeded = [
        f"span {report['span']}: {finding['text']}"
        for report in (*earlier, summary.drift)
        for finding in report["findings"]
        if finding["exceeded"]
    ]
    reference = summary.drift["reference"]
    if reference is None and not exceeded:
        return ["no earlier span to compare with"]
    return exceeded or [f"none since span {reference}"]


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
        return "no blessed model of earlier data, so training started from scratch"
    candidates = summary.warm_start["vocabularies"][config.events.candidate_id]
    return (
        f"{candidates['kept']:,} candidates known, {candidates['new']:,} new, "
        f"{candidates['gone']:,} gone; from {summary.warm_start['source']}"
    )


def show_evaluation(report: Mapping[str, Any]) -> None:
    """Print the metrics and slices of `evaluation.json`, and the checks of the gate."""
    metric = report["baseline_metric"]
    k = metric.partition("@")[2]
    cuts = [name.partition("@")[2] for name in report["metrics"]["model"] if "hit_rate@" in name]
    cuts = list(dict.fromkeys(cuts))
    say(_title(report))
    for name in _RANKING_METRICS:
        print_table(_rankers_table(report, name, {f"@{cut}": f"{name}@{cut}" for cut in cuts}))
    lists = {name: f"{name}@{k}" for name in _LIST_METRICS}
    print_table(_rankers_table(report, f"first {k}", lists))
    # Slices have per-event metrics, because the events of one query can be in several slices.
    of_events = metric.removeprefix("query_").replace("precision", "hit_rate").replace("map", "mrr")
    print_table(_slices_table(report, of_events), title=f"{of_events} by slice")
    say(
        f"{metric} with its {report['confidence']:.0%} interval over {report['num_queries']:,} "
        "queries:"
    )
    for name, interval in report["intervals"].items():
        low, high = interval["low"], interval["high"]
        say(f"  {name:<20} {interval['value']:.4f}  {low:.4f} to {high:.4f}")
    gate = report["gate"]
    say(f"The gate would {'bless' if gate['blessed'] else 'refuse'} the model:")
    for check in gate["checks"]:
        say(f"  {'✓' if check['passed'] else '✗'} {check['text']}")
    for problem in gate["problems"]:
        say(f"  ✗ {problem}")
    say(f"model     {report['model']}")


def _title(report: Mapping[str, Any]) -> str:
    seen = "excluded" if report["exclude_seen"] else "included"
    return (
        f"{report['num_events']:,} held-out events of {report['num_queries']:,} queries among "
        f"{report['num_candidates']:,} candidates, {report['protocol']}, seen candidates {seen}"
    )


def _main_rankers(report: Mapping[str, Any]) -> list[str]:
    """Return the model, the last blessed model, the best baseline and popularity, if measured."""
    best = [report["best_baseline"]["against"]] if report["best_baseline"] else []
    wanted = ["model", "last_blessed", *best, "popularity"]
    return list(dict.fromkeys(name for name in wanted if name in report["metrics"]))


def _metrics_table(report: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """Return a table with a row for each metric and a column for each main ranker."""
    rankers = _main_rankers(report)
    table = new_table("")
    _add_numbers(table, rankers)
    for name in metrics:
        values = [report["metrics"][ranker].get(name) for ranker in rankers]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def _rankers_table(report: Mapping[str, Any], name: str, columns: Mapping[str, str]) -> Table:
    """Return a table with a row for each ranker; `columns` maps headings to metrics."""
    table = new_table(name)
    _add_numbers(table, list(columns))
    for ranker, metrics in report["metrics"].items():
        numbers = [float(metrics[metric]) for metric in columns.values()]
        style = "bold" if ranker == "model" else ""
        table.add_row(ranker, *(f"{number:.4f}" for number in numbers), style=style)
    return table


def _slices_table(report: Mapping[str, Any], metric: str) -> Table:
    rankers = _main_rankers(report)
    table = new_table("")
    _add_numbers(table, ["events", *rankers])
    for name, values in report["slices"].items():
        for value, measured in values.items():
            numbers = [float(measured["metrics"][ranker][metric]) for ranker in rankers]
            table.add_row(
                f"{name}: {value}",
                f"{measured['num_events']:,}",
                *[f"{number:.4f}" for number in numbers],
            )
    return table


def _add_numbers(table: Table, headings: Sequence[str]) -> None:
    for heading in headings:
        style = "bold" if heading == "model" else ""
        table.add_column(heading, justify="right", style=style, overflow="fold")
