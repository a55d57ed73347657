"""`two-tower loadtest`: measure the throughput and latency of a model server."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Model, Positive, Project, Tls
from pipeline.cli.output import new_table, note, print_json, print_table, say, waiting

if TYPE_CHECKING:
    from serving.loadtest import LoadResult

# If the load generator is busy for more than this share of the time, it may be the bottleneck.
_BUSY = 0.85
_CONCURRENCY = 16
_SIGNATURE = "serving_default"
_Seconds = Annotated[float, typer.Option(min=0.001)]


@command
def loadtest(
    project: Project,
    target: str | None = None,
    concurrency: Annotated[int | None, typer.Option(min=1, show_default=str(_CONCURRENCY))] = None,
    rate: Annotated[float | None, typer.Option(min=0.001)] = None,
    duration: _Seconds = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0)] = 1.0,
    signature: Annotated[list[str] | None, typer.Option(show_default=_SIGNATURE)] = None,
    batch: Positive = 1,
    queries: Positive = 1000,
    timeout: _Seconds = 5.0,
    processes: Positive = 1,
    label: str | None = None,
    model: Model = Model(),
    tls: Tls = Tls(),
    as_json: bool = False,
) -> None:
    """Measure a model server under load with real queries of the evaluation split, over gRPC.

    With --rate, the latency of a request starts when the request was due, so it includes the time
    that the request waited because the server was too slow. The exit code is 1 if no request was
    answered.

    Example: two-tower loadtest -c movielens_100k --rate 200 --duration 30

    Args:
        concurrency: Number of clients. Each client sends a request when its previous one is
            answered (closed loop).
        rate: Requests per second, which are sent even if answers are late (open loop).
        duration (SECONDS): Time to measure.
        warmup (SECONDS): Time under load before the measurement.
        signature (NAME): serving_default, recommend_excluding, similar_candidates or embed_query.
            Repeat it to alternate between signatures.
        batch: Queries per request.
        queries: Number of different queries.
        timeout (SECONDS): Deadline of a request.
        processes: Processes that send requests. A fast server needs several.
        label (LABEL): Send requests to the version with this label.
    """
    if concurrency is not None and rate is not None:
        raise typer.BadParameter("--concurrency and --rate are two kinds of load: choose one")
    if rate is None and concurrency is None:
        concurrency = _CONCURRENCY
    loaded = project.load()
    from pipeline.cli.serve import chosen_model, serving_target
    from pipeline.runs.evaluation import evaluation_queries
    from serving.clients import RetrievalClient
    from serving.clients.model import ModelChoice
    from serving.loadtest import LoadPlan, build_requests, drive_in_processes

    sampled = evaluation_queries(loaded, queries)
    asked = ModelChoice(loaded.serving.model_name, model.version, label)
    signatures = signature or [_SIGNATURE]
    options = tls.for_client()
    answering = chosen_model(loaded, project.config, model, target)
    with serving_target(loaded, answering, target) as address:
        with RetrievalClient(
            address, asked.name, model_version=asked.version, version_label=label, tls=options
        ) as client:
            metadata = client.metadata()
        requests = build_requests(
            metadata,
            asked,
            sampled,
            signatures,
            batch_size=batch,
            query_id_name=loaded.events.query_id,
            candidate_id_name=loaded.events.candidate_id,
        )
        plan = LoadPlan(
            address,
            requests,
            duration,
            concurrency=concurrency,
            rate=rate,
            warmup_s=warmup,
            timeout_s=timeout,
            tls=options,
        )
        with waiting(f"sending requests to {address} for {warmup + duration:g} s"):
            result = drive_in_processes(plan, processes)
    about = {
        "config": loaded.name,
        "server": target or "started for this test",
        "model_version": metadata.model_version,
        "signatures": signatures,
        "concurrency": concurrency,
        "rate_per_s": rate,
        "queries_per_request": batch,
        "processes": processes,
    }
    _show(about, result, as_json)
    if not result.answered_in_time:
        raise typer.Exit(1)


def _show(about: dict[str, Any], result: "LoadResult", as_json: bool) -> None:
    summary = result.to_json()
    if result.driver_busy > _BUSY:
        note(
            f"the load generator was busy {result.driver_busy:.0%} of the time, so these figures "
            "may show its limit and not the server's: try more --processes, or a lower --rate",
            style="yellow",
        )
    if as_json:
        print_json({**about, **summary})
        return
    load = (
        f"closed loop of {about['concurrency']} clients"
        if about["concurrency"]
        else f"{about['rate_per_s']:g} requests/s, latency from the time when each was due"
    )
    say(f"{load}; model version {about['model_version']}")
    rows = {
        "requests": f"{summary['requests']:,}",
        "answers per second": f"{summary['throughput_per_s']:,.1f}",
    }
    if about["queries_per_request"] > 1:
        queries = result.throughput * about["queries_per_request"]
        rows["queries answered per second"] = f"{queries:,.1f}"
    for name, value in summary["latency_ms"].items():
        rows[name] = "" if value is None else f"{value:,.2f} ms"
    rows["errors"] = f"{sum(summary['errors'].values()):,}"
    rows |= {f"  {name}": f"{count:,}" for name, count in summary["errors"].items()}
    table = new_table("", show_header=False)
    table.add_column(justify="right")
    for row in rows.items():
        table.add_row(*row)
    print_table(table)
    for name, message in summary["error_messages"].items():
        say(f"{name}: {message}")
