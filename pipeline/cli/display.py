"""Terminal output of a run (progress and summary) and of an evaluation (tables)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline.cli.output import new_table, print_table, say
from pipeline.releases.answering_model import other_stable_version

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.orchestrators.local.runner import ComponentOutcome
    from pipeline.runs.summary import RunSummary

_PROGRESS_LOGGER = "two_tower.progress"
_SUMMARY_METRICS = ("hit_rate@", "ndcg@")
_RANKING_METRICS = ("hit_rate", "ndcg", "mrr")
_LIST_METRICS = ("coverage", "gini", "overlap", "novelty", "popularity_lift")


class RunDisplay(logging.Handler):
    """Progress of a run: a bar for the running component, and a line for each finished one.

    `terminal` is not `sys.stderr`, which goes to the log file during a run.
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

    def __exit__(self, *error: object) -> None:
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
        rankers = _main_rankers(summary.evaluation)
        rows = {name: [summary.metrics[ranker].get(name) for ranker in rankers] for name in names}
        say(_title(summary.evaluation), style="bold")
        _print_numbers("", rankers, rows)
        metric, wanted = (summary.evaluation[name] for name in ("gate_metric", "baseline_metric"))
        replaced = "" if metric == wanted else f" instead of {wanted}"
        say(f"gate      {metric}{replaced}: {summary.evaluation['chance_text']}")
        for line in _left_out_lines(summary.evaluation):
            say(f"left out  {line}")
    for warning in summary.warnings:
        say(f"warning   {warning}")
    _say_ranking(summary.evaluation)
    if summary.spans:
        say(f"spans     {_spans_line(summary)}")
    for finding in drift_lines(summary):
        say(f"drift     {finding}")
    if config.events.min_rating is not None and summary.fit:
        minimum = f"`events.min_rating: {config.events.min_rating:g}`"
        say(f"ratings   {summary.num_below_min_rating:,} events below {minimum} are ignored")
    if summary.evaluation and (line := _weights_line(summary, config)):
        say(f"events    {line}")
    if summary.tuning:
        say(f"tuning    {_tuning_line(summary)}")
    if summary.warm_start:
        say(f"warm start {_warm_start_line(summary, config)}")
    if summary.index:
        index = summary.index
        say(
            f"index     {index['backend']}, {index['num_candidates']:,} candidates, "
            f"recall@{index['k']} {index['recall']:.3f}"
        )
        if index["backend"] == "exact" and index["reason"].startswith("exact, because"):
            # Warn about a fallback to exact search: its latency grows with the catalogue.
            say(f"          {index['reason']}")
        if kept := index.get("known_histories"):
            say(
                f"histories the newest {kept['newest']} events of {kept['num_queries']:,} queries: "
                f"{kept['num_events']:,} events, {kept['megabytes']:,.1f} MB"
            )
    say(f"time      {summary.total_seconds:.1f} s")
    if summary.pushed_version is not None:
        verb = "pushed    version" if summary.newly_pushed else "serving   already version"
        say(f"{verb} {summary.pushed_version} in {summary.serving_dir}")
        if stable := other_stable_version(config, summary.pushed_version):
            say(f"answering {stable}")
    elif summary.fit:
        if summary.is_experiment and summary.failure is None:
            say("pushed    nothing, because this is an experiment; --push pushes the model")
        say(f"try       two-tower recommend --config {config.name} --run {summary.run_id}")
    if batch := summary.recommendations:
        say(f"batch     {batch['num_queries']:,} queries answered in {batch['folder']}")
    if summary.tuned_config is not None:
        say(f"tuned     {summary.tuned_config}")
    if summary.report is not None:
        say(f"report    {Path(summary.report).as_uri()}")
    say(f"log       {log_path}")


def _weights_line(summary: "RunSummary", config: "PipelineConfig") -> str:
    parts = []
    for what, weights in (("type", config.events.types), ("rating", config.events.rating_weights)):
        if weights:
            shown = ", ".join(f"{name} {weight:g}" for name, weight in list(weights.items())[:10])
            parts.append(f"weights by {what} in training and evaluation: {shown}")
    if targets := config.evaluation.targets:
        parts.append(f"targets of the evaluation: {', '.join(targets)}")
    if parts and (number := summary.evaluation["num_without_weight"]):
        parts.append(f"{number:,} held-out events with weight 0 are not targets")
    return "; ".join(parts)


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
    exceeded = [
        f"span {report['span']}: {finding['text']}"
        for report in (*summary.drift.get("earlier", []), summary.drift)
        for finding in report["findings"]
        if finding["exceeded"]
    ]
    reference = summary.drift["reference"]
    if reference is None:
        return exceeded or ["no earlier span to compare with"]
    return exceeded or [f"none since span {reference}"]


def _say_ranking(report: Mapping[str, Any]) -> None:
    if not report.get("ranking"):
        return
    say(f"ranking   {_ranking_line(report)}")
    for name, task in report["ranking"].get("tasks", {}).items():
        metric = "auc" if task["loss"] == "binary" else "rmse"
        values = ", ".join(
            f"{ranker} {_number(found[metric])}" for ranker, found in task["metrics"].items()
        )
        say(f"task      {name}: {metric} over {task['num_events']:,} events: {values}")


def _ranking_line(report: Mapping[str, Any]) -> str:
    ranking = report["ranking"]
    comparison = ranking["comparison"]
    value, low, high = (_number(comparison["interval"][part]) for part in ("value", "low", "high"))
    found = f"{comparison['metric']} of the ranked list less that of the retrieved one is {value}"
    interval = f"{report['confidence']:.0%} interval {low} to {high}"
    if ranking["served"]:
        return f"served: {found}, {interval}"
    instead = "the retriever alone is"
    if ranking.get("tasks"):
        instead = "its tasks are, in the order of the retriever"
    return f"not served, {instead}: {found}, {interval}, which must be above 0"


def _tuning_line(summary: "RunSummary") -> str:
    tuning = summary.tuning
    scores = [trial["score"] for trial in tuning["trials"] if trial["score"] is not None]
    failed = len(tuning["trials"]) - len(scores)
    best = ", ".join(f"{name} {value}" for name, value in tuning["best"].items())
    best = best or "the configured settings"
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
    metric = report["gate_metric"]
    k = metric.partition("@")[2]
    measured = report["metrics"]
    hit_rates = [name for name in measured["model"] if "hit_rate@" in name]
    cuts = list(dict.fromkeys(name.partition("@")[2] for name in hit_rates))
    say(_title(report))
    tables = {name: {f"@{cut}": f"{name}@{cut}" for cut in cuts} for name in _RANKING_METRICS}
    tables[f"first {k}"] = {name: f"{name}@{k}" for name in _LIST_METRICS}
    for corner, columns in tables.items():
        rows = {
            ranker: [values[name] for name in columns.values()]
            for ranker, values in measured.items()
        }
        _print_numbers(corner, list(columns), rows)
    for line in _left_out_lines(report):
        say(f"left out  {line}")
    # Slices have per-event metrics, because the events of one query can be in several slices.
    of_events = metric.removeprefix("query_").replace("precision", "hit_rate").replace("map", "mrr")
    rankers = _main_rankers(report)
    slices = {
        f"{name}: {value if value.isprintable() else repr(value)}": [
            f"{found['num_events']:,}",
            *(found["metrics"][ranker][of_events] for ranker in rankers),
        ]
        for name, values in report["slices"].items()
        for value, found in values.items()
    }
    say(f"{of_events} by slice", style="bold")
    _print_numbers("", ["events", *rankers], slices)
    say(
        f"{metric} with its {report['confidence']:.0%} interval over {report['num_queries']:,} "
        "queries:"
    )
    for name, interval in report["intervals"].items():
        value, low, high = (_number(interval[part]) for part in ("value", "low", "high"))
        say(f"  {name:<20} {value}  {low} to {high}")
    if report["cold"]["targets"]:
        targets, hits = (_number(report["cold"][name]) for name in ("targets", "hits"))
        say(f"cold      share of cold candidates in the hits {hits}, in the events {targets}")
    _say_ranking(report)
    gate = report["gate"]
    say(f"The gate would {'bless' if gate['blessed'] else 'refuse'} the model:")
    for check in gate["checks"]:
        say(f"  {'✓' if check['passed'] else '✗'} {check['text']}")
    for problem in gate["problems"]:
        say(f"  ✗ {problem}")
    say(f"model     {report['model']}")


def _title(report: Mapping[str, Any]) -> str:
    seen = "excluded" if report["exclude_seen"] else "included"
    unknown = report["num_unknown_targets"]
    misses = f" ({unknown:,} of candidates that the catalogue lacks)" if unknown else ""
    if unavailable := report.get("num_unavailable_targets"):
        misses += f" ({unavailable:,} of candidates that were not available)"
    return (
        f"{report['num_events']:,} held-out events{misses} of {report['num_queries']:,} queries "
        f"among {report['num_candidates']:,} candidates, {report['protocol']}, seen candidates "
        f"{seen}"
    )


def _main_rankers(report: Mapping[str, Any]) -> list[str]:
    """Return the model, its other list, the last blessed model, the best baseline and popularity.

    Those that were not measured are left out.
    """
    best = [report["best_baseline"]["against"]] if report["best_baseline"] else []
    wanted = ["model", "ranked", "retrieved", "last_blessed", *best, "popularity"]
    return list(dict.fromkeys(name for name in wanted if name in report["metrics"]))


def _left_out_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the baselines that were not measured, with a line per reason."""
    names: dict[str, list[str]] = {}
    for name, reason in report["left_out_baselines"].items():
        names.setdefault(reason, []).append(name)
    return [f"{', '.join(of)}: {reason}" for reason, of in names.items()]


def _print_numbers(
    corner: str, headings: Sequence[str], rows: Mapping[str, Sequence[float | str | None]]
) -> None:
    """Print a table of metrics; the row and the column of the model are bold."""
    table = new_table(corner)
    for heading in headings:
        style = "bold" if heading == "model" else ""
        table.add_column(heading, justify="right", style=style, overflow="fold")
    for name, values in rows.items():
        cells = [value if isinstance(value, str) else _number(value) for value in values]
        table.add_row(escape(name), *cells, style="bold" if name == "model" else "")
    print_table(table)


def _number(value: float | None) -> str:
    """Return a metric as text; "–" if it has no value, for example without held-out events."""
    return "–" if value is None else f"{value:.4f}"
