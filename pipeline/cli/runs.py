"""`two-tower runs`: list past runs and their status, and compare them, from ML Metadata."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Positive, Project
from pipeline.cli.output import new_table, print_json, print_table, say

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.runs.history import RunRecord

app = typer.Typer(invoke_without_command=True)

_GATES = ("drift", "evaluation", "index", "server")
# Metrics that a comparison shows, besides those with intervals.
_COMPARED = ("hit_rate@", "mrr@", "ndcg@", "coverage@", "novelty@")
_TENSORBOARD = str(Path(sys.executable).with_name("tensorboard"))
_STYLES = {"complete": "green", "running": "cyan"}


@app.callback()
@command
def runs(
    context: typer.Context,
    config: str | None = None,
    set_: list[str] | None = None,
    limit: Positive = 20,
    as_json: bool = False,
) -> None:
    """List the runs of a project, newest first: span, state, metric, gates, version and overrides.

    Example: two-tower runs -c movielens_100k --limit 5

    Args:
        limit: Number of runs to list.
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise typer.BadParameter("give a configuration: two-tower runs --config NAME")
    loaded = Project(config, set_).load()
    from pipeline.runs.history import records_of

    found = _with_results(loaded, records_of(loaded)[::-1][:limit])
    if as_json:
        print_json([record.to_json() for record in found])
        return
    from rich.markup import escape

    metrics = [_gate_metric(record, loaded.evaluation.baseline_metric) for record in found]
    # Runs that ended before the evaluation have no metric.
    names = {name for name, _ in metrics} - {""}
    metric = names.pop() if len(names) == 1 else "metric"
    # Few projects have a drift gate, so the column is omitted if it would be empty.
    compares_spans = any("drift" in record.summary.get("gates", {}) for record in found)
    gates = _GATES if compares_spans else _GATES[1:]
    columns = {
        "name": [escape(record.name) for record in found],
        "set": [escape(shlex.join(record.overrides)) for record in found],
    }
    # The columns of experiments are omitted too if they would be empty.
    columns = {heading: cells for heading, cells in columns.items() if any(cells)}
    table = new_table("run", "span", "state", metric, *gates, "version", *columns)
    for row, (record, (name, value)) in enumerate(zip(found, metrics, strict=True)):
        passed = record.summary.get("gates", {})
        table.add_row(
            record.run_id,
            record.span,
            f"[{_STYLES.get(record.state, 'red')}]{record.state}[/]",
            value if name == metric else f"{name} {value}",
            *(passed.get(gate, "") for gate in gates),
            str(record.summary.get("pushed_version") or ""),
            *(cells[row] for cells in columns.values()),
        )
    print_table(table, ids=0)


@app.command()
@command
def show(run_id: Annotated[str, typer.Argument()], project: Project, as_json: bool = False) -> None:
    """Show the components, times, metrics and outcome of one run.

    Example: two-tower runs show 20261130 -c movielens_100k

    Args:
        run_id (ID): ID of the run, or its first characters.
    """
    loaded = project.load()
    from pipeline.runs.history import find_run
    from pipeline.runs.metadata import open_store
    from pipeline.runs.results import component_executions

    (record,) = _with_results(loaded, [find_run(loaded, run_id)])
    executions = component_executions(open_store(loaded), loaded.name, record.run_id)
    if as_json:
        print_json({**record.to_json(), "components": executions, "summary": record.summary})
    else:
        _print(record, executions, loaded.evaluation.baseline_metric)


@app.command()
@command
def compare(
    run_ids: Annotated[list[str], typer.Argument()], project: Project, as_json: bool = False
) -> None:
    """Compare runs with the first one: settings, metrics with paired intervals, time and size.

    An interval is that of the difference from the first run, over the queries that both evaluated.

    Example: two-tower runs compare 20261129 20261130 -c movielens_100k

    Args:
        run_ids (ID): IDs of two or more runs, or their first characters.
    """
    if len(run_ids) < 2:
        raise typer.BadParameter("name at least two runs")
    loaded = project.load()
    from pipeline.runs.comparison import compare_runs

    found = compare_runs(loaded, run_ids)
    if as_json:
        print_json(found)
    else:
        _print_comparison(found)


def _with_results(config: "PipelineConfig", records: list["RunRecord"]) -> list["RunRecord"]:
    from pipeline.runs.metadata import open_store
    from pipeline.runs.results import with_results

    return with_results(open_store(config), records) if records else []


def _gate_metric(record: "RunRecord", default: str) -> tuple[str, str]:
    """Return the name and the value of the metric that the gate compared; empty without metrics.

    Earlier releases did not record the name, which is `default` then.
    """
    measured = record.summary.get("metrics", {}).get("model", {})
    name = (record.summary.get("gate_metric") or default) if measured else ""
    return name, _number(measured.get(name))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _print(record: "RunRecord", executions: list[dict[str, Any]], baseline_metric: str) -> None:
    from datetime import datetime, timezone

    metric = _gate_metric(record, baseline_metric)
    started = datetime.fromtimestamp(record.started_s, timezone.utc)
    lines = {
        "run": f"{record.run_id} of {record.config} ({record.command})",
        "state": record.state,
        "started": f"{started:%Y-%m-%d %H:%M:%S} UTC",
        "time": f"{record.ended_s - record.started_s:.1f} s" if record.ended_s else "",
        "host": record.host,
        "span": record.span,
        "name": record.name,
        "set": shlex.join(record.overrides),
        "metric": " ".join(metric).strip(),
        "gates": ", ".join(f"{k} {v}" for k, v in record.summary.get("gates", {}).items()),
        "version": record.summary.get("pushed_version") or "",
        "problem": record.problem,
        "curves": next(
            (
                shlex.join([_TENSORBOARD, "--logdir", output["uri"]])
                for execution in executions
                for output in execution["outputs"]
                if output["type"] == "ModelRun"
            ),
            "",
        ),
    }
    for name, value in lines.items():
        if value != "":
            say(f"{name:<10}{value}")
    for execution in executions:
        seconds = f"{execution['seconds']:.1f} s" if execution["state"] == "complete" else ""
        say(f"  {execution['component']:<20} {execution['state']:<10} {seconds}")
    for ranker, metrics in record.summary.get("metrics", {}).items():
        names = sorted(metrics, key=lambda name: name != metric[0])
        shown = ", ".join(f"{name} {_number(metrics[name])}" for name in names[:6])
        say(f"  {ranker:<20} {shown}")


def _print_comparison(found: dict[str, Any]) -> None:
    from rich.markup import escape

    def show(title: str, rows: dict[str, list[Any]]) -> None:
        table = new_table("", *(escape(run["name"] or run["run_id"]) for run in found["runs"]))
        for name, cells in rows.items():
            table.add_row(escape(name), *(escape(str(cell)) for cell in cells))
        print_table(table, title=title)

    def cells(key: str, pattern: str) -> list[str]:
        values = [run[key] for run in found["runs"]]
        return ["–" if value is None else pattern.format(value) for value in values]

    for run in found["runs"]:
        say(f"{run['run_id']}  {run['name']}  {run['state']}  {shlex.join(run['overrides'])}")
    show("settings that differ", found["settings"])
    rows: dict[str, list[Any]] = {}
    paired = {name for of in found["differences"] if of for name in of["intervals"]}
    for metric, (first, *others) in found["metrics"].items():
        if not metric.startswith(_COMPARED) and metric not in paired:
            continue
        rows[metric] = [_number(first)]
        for value, difference in zip(others, found["differences"], strict=True):
            interval = (difference or {"intervals": {}})["intervals"].get(metric)
            shown = interval and f" ({interval['low']:+.4f} to {interval['high']:+.4f})"
            rows[metric].append(f"{_number(value)}{shown or ''}")
    show("metrics of the model, with intervals of the difference from the first run", rows)
    costs = {
        "run": cells("seconds", "{:.1f} s"),
        "training": cells("training_seconds", "{:.1f} s"),
        "epochs": cells("epochs", "{}"),
    }
    sizes = [run["model_bytes"] for run in found["runs"]]
    costs["model"] = ["–" if size is None else f"{size / 1e6:.1f} MB" for size in sizes]
    show("time and size", costs)
