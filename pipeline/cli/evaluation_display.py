"""An evaluation on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

_SHOWN_METRICS = ("hit_rate", "ndcg", "mrr")
_LIST_METRICS = ("coverage", "gini", "novelty", "popularity_lift")


def evaluation_tables(report: Mapping[str, Any]) -> list[Table | str]:
    """Returns everything that a person wants of `evaluation.json`: tables and lines."""
    metric = report["baseline_metric"]
    k = metric.partition("@")[2]
    cuts = [name.partition("@")[2] for name in report["metrics"]["model"] if "hit_rate@" in name]
    cuts = list(dict.fromkeys(cuts))
    shown: list[Table | str] = [title(report)]
    for name in _SHOWN_METRICS:
        shown.append(_contender_table(report, name, {f"@{cut}": f"{name}@{cut}" for cut in cuts}))
    lists = {name: f"{name}@{k}" for name in _LIST_METRICS}
    shown.append(_contender_table(report, f"first {k}", lists))
    shown.append(_slices_table(report, metric))
    level = f"{report['confidence']:.0%} of {report['resamples']:,} resamples"
    for name, interval in report["intervals"].items():
        shown.append(
            f"{metric} of {name}: {interval['value']:.4f}, {interval['low']:.4f} to "
            f"{interval['high']:.4f} in {level}"
        )
    verdict = "would pass" if report["gate"]["blessed"] else "would be refused"
    shown.append(f"the gate: {verdict}")
    for check in report["gate"]["checks"]:
        mark = "✓" if check["passed"] else "✗"
        words = check["relation"] if check["passed"] else f"not {check['relation']}"
        shown.append(
            f"  {mark} {check['name']} {check['value']:.4f} is {words} {check['threshold']:.4f}"
        )
    shown += [f"  ✗ {problem}" for problem in report["gate"]["problems"]]
    shown.append(f"model     {report['model']}")
    return shown


def title(report: Mapping[str, Any]) -> str:
    """Returns in words what was predicted, of how many, and by which protocol."""
    seen = "excluded" if report["exclude_seen"] else "counted"
    return (
        f"{report['num_events']:,} held-out events of {report['num_queries']:,} queries among "
        f"{report['num_candidates']:,} candidates, {report['protocol']}, seen candidates {seen}"
    )


def metrics_table(
    report: Mapping[str, Any], contenders: Sequence[str], wanted: Sequence[str]
) -> Table:
    """Returns metrics by contender.

    Args:
        report: What `evaluation.json` holds.
        contenders: The columns, in order.
        wanted: The rows, in order.
    """
    table = Table(title=title(report), title_justify="left", title_style="bold")
    table.add_column("")
    for contender in contenders:
        style = "bold" if contender == "model" else ""
        table.add_column(contender, justify="right", style=style, overflow="fold")
    for name in wanted:
        values = [report["metrics"][contender].get(name) for contender in contenders]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def main_contenders(report: Mapping[str, Any]) -> list[str]:
    """Returns the contenders that a short table shows: model, last model, best, popularity."""
    best = [report["best_baseline"]["against"]] if report["best_baseline"] else []
    wanted = ["model", "last_blessed", *best, "popularity"]
    return list(dict.fromkeys(name for name in wanted if name in report["metrics"]))


def _contender_table(report: Mapping[str, Any], name: str, columns: Mapping[str, str]) -> Table:
    """Returns a row for each contender; `columns` gives the metric under each heading."""
    table = Table(title_justify="left")
    table.add_column(name)
    for heading in columns:
        table.add_column(heading, justify="right")
    for contender, metrics in report["metrics"].items():
        numbers = [float(metrics[metric]) for metric in columns.values()]
        style = "bold" if contender == "model" else ""
        table.add_row(contender, *(f"{number:.4f}" for number in numbers), style=style)
    return table


def _slices_table(report: Mapping[str, Any], metric: str) -> Table:
    shown = main_contenders(report)
    # Over events: a slice tells events apart, and a query may have some on either side.
    of_events = metric.removeprefix("query_").replace("precision", "hit_rate").replace("map", "mrr")
    table = Table(title=f"{of_events} by slice", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("events", justify="right")
    for contender in shown:
        table.add_column(contender, justify="right", style="bold" if contender == "model" else "")
    for name, values in report["slices"].items():
        for value, measured in values.items():
            numbers = [float(measured["metrics"][who][of_events]) for who in shown]
            table.add_row(
                f"{name}: {value}",
                f"{measured['num_events']:,}",
                *[f"{number:.4f}" for number in numbers],
            )
    return table
