"""`two-tower runs`: list past runs and their status, from ML Metadata."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Positive, Project
from pipeline.cli.output import fail, new_table, print_json, print_table, say

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.runs.history import RunRecord

app = typer.Typer(invoke_without_command=True)

_GATES = ("drift", "evaluation", "index", "server")
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
    """List the runs of a project, newest first: span, state, metric, gates and version.

    Example: two-tower runs -c movielens_100k --limit 5

    Args:
        limit: Number of runs to list.
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise typer.BadParameter("give a configuration: two-tower runs --config NAME")
    loaded = Project(config, set_).load()
    found = _with_results(loaded, _records(loaded)[::-1][:limit])
    if as_json:
        print_json([record.to_json() for record in found])
        return
    metrics = [_gate_metric(record, loaded.evaluation.baseline_metric) for record in found]
    # Runs that ended before the evaluation have no metric.
    names = {name for name, _ in metrics} - {""}
    metric = names.pop() if len(names) == 1 else "metric"
    # Few projects have a drift gate, so the column is omitted if it would be empty.
    compares_spans = any("drift" in record.summary.get("gates", {}) for record in found)
    gates = _GATES if compares_spans else _GATES[1:]
    table = new_table("run", "span", "state", metric, *gates, "version")
    for record, (name, value) in zip(found, metrics, strict=True):
        passed = record.summary.get("gates", {})
        table.add_row(
            record.run_id,
            record.span,
            f"[{_STYLES.get(record.state, 'red')}]{record.state}[/]",
            value if name == metric else f"{name} {value}",
            *(passed.get(gate, "") for gate in gates),
            str(record.summary.get("pushed_version") or ""),
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
    found = [record for record in _records(loaded) if record.run_id.startswith(run_id)]
    if not found:
        fail(f"there is no run {run_id!r} of {loaded.name}; `two-tower runs` lists them")
    if len(found) > 1:
        ids = ", ".join(record.run_id for record in found[-5:])
        fail(f"{len(found)} runs of {loaded.name} begin with {run_id!r}: {ids}")
    (record,) = _with_results(loaded, found)
    from pipeline.runs.metadata import open_store
    from pipeline.runs.results import component_executions

    executions = component_executions(open_store(loaded), loaded.name, record.run_id)
    if as_json:
        print_json({**record.to_json(), "components": executions, "summary": record.summary})
    else:
        _print(record, executions, loaded.evaluation.baseline_metric)


def _records(config: "PipelineConfig") -> list["RunRecord"]:
    from pipeline.runs.history import RunHistory
    from pipeline.runs.lock import is_locked
    from pipeline.runs.metadata import has_metadata, open_store

    if not has_metadata(config):
        return []
    history = RunHistory(open_store(config), config.name)
    return history.records(is_locked=is_locked(config.run_dir))


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
        "set": shlex.join(record.overrides),
        "metric": " ".join(metric).strip(),
        "gates": ", ".join(f"{k} {v}" for k, v in record.summary.get("gates", {}).items()),
        "version": record.summary.get("pushed_version") or "",
        "problem": record.problem,
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
