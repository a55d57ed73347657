"""Formats an evaluation for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

_SHOWN_METRICS = ("hit_rate", "ndcg", "mrr")
_LIST_METRICS = ("coverage", "gini", "novelty", "popularity_lift")


def evaluation_tables(report: Mapping[str, Any]) -> list[Table | str]:
    """Return tables and lines that show the content of `evaluation.json`."""
    metric = report["baseline_metric"]
    k = metric.partition("@")[2]
    cuts = [name.partition("@")[2] for name in report["metrics"]["model"] if "hit_rate@" in name]
    shown: list[Table | str] = [title(report)]
    for name in _SHOWN_METRICS:
        columns = {f"@{cut}": f"{name}@{cut}" for cut in dict.fromkeys(cuts)}
        shown.append(_ranker_table(report, name, columns))
    lists = {name: f"{name}@{k}" for name in _LIST_METRICS}
    shown.append(_ranker_table(report, f"first {k}", lists))
    shown.append(_slices_table(report, metric))
    shown.append(
        f"{metric} with its {report['confidence']:.0%} interval over {report['num_queries']:,} "
        "queries:"
    )
    for name, interval in report["intervals"].items():
        shown.append(
            f"  {name:<20} {interval['value']:.4f}  {interval['low']:.4f} to {interval['high']:.4f}"
        )
    gate = report["gate"]
    shown.append(f"The gate would {'bless' if gate['blessed'] else 'refuse'} the model:")
    for check in gate["checks"]:
        shown.append(f"  {'✓' if check['passed'] else '✗'} {check['text']}")
    shown += [f"  ✗ {problem}" for problem in gate["problems"]]
    shown.append(f"model     {report['model']}")
    return shown


def title(report: Mapping[str, Any]) -> str:
    """Return a line with the numbers of events, queries and candidates, and the protocol."""
    seen = "excluded" if report["exclude_seen"] else "included"
    return (
        f"{report['num_events']:,} held-out events of {report['num_queries']:,} queries among "
        f"{report['num_candidates']:,} candidates, {report['protocol']}, seen candidates {seen}"
    )


def metrics_table(
    report: Mapping[str, Any], rankers: Sequence[str], metrics: Sequence[str]
) -> Table:
    """Return a table with a row per metric and a column per ranker."""
    table = Table(title=title(report), title_justify="left", title_style="bold")
    table.add_column("")
    for ranker in rankers:
        style = "bold" if ranker == "model" else ""
        table.add_column(ranker, justify="right", style=style, overflow="fold")
    for name in metrics:
        values = [report["metrics"][ranker].get(name) for ranker in rankers]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def main_rankers(report: Mapping[str, Any]) -> list[str]:
    """Return the rankers of a short table: model, last blessed, best baseline, popularity."""
    best = [report["best_baseline"]["against"]] if report["best_baseline"] else []
    names = dict.fromkeys(["model", "last_blessed", *best, "popularity"])
    return [name for name in names if name in report["metrics"]]


def _ranker_table(report: Mapping[str, Any], name: str, columns: Mapping[str, str]) -> Table:
    """Return a table with a row per ranker; `columns` maps a heading to a metric."""
    table = Table(title_justify="left")
    table.add_column(name)
    for heading in columns:
        table.add_column(heading, justify="right")
    for ranker, metrics in report["metrics"].items():
        numbers = [float(metrics[metric]) for metric in columns.values()]
        style = "bold" if ranker == "model" else ""
        table.add_row(ranker, *(f"{number:.4f}" for number in numbers), style=style)
    return table


def _slices_table(report: Mapping[str, Any], metric: str) -> Table:
    rankers = main_rankers(report)
    # Slices have event metrics only: the events of one query can be in different slices.
    metric = metric.removeprefix("query_").replace("precision", "hit_rate").replace("map", "mrr")
    table = Table(title=f"{metric} by slice", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("events", justify="right")
    for ranker in rankers:
        table.add_column(ranker, justify="right", style="bold" if ranker == "model" else "")
    for name, values in report["slices"].items():
        for value, measured in values.items():
            numbers = [float(measured["metrics"][ranker][metric]) for ranker in rankers]
            table.add_row(
                f"{name}: {value}",
                f"{measured['num_events']:,}",
                *[f"{number:.4f}" for number in numbers],
            )
    return table
