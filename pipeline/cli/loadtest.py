"""`two-tower loadtest`: measure the throughput and latency of a model server."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.command import command, usage_error
from pipeline.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    TargetOption,
    TlsCaOption,
    TlsCertificateOption,
    TlsKeyOption,
    TlsNameOption,
    load_config,
    tls_options,
)
from pipeline.cli.output import new_table, note, print_json, print_table, say, waiting

if TYPE_CHECKING:
    from serving.loadtest import LoadResult

# If the load generator is busy for more than this share of the time, it may be the bottleneck.
_BUSY = 0.85


@command
def loadtest(
    config: ConfigOption,
    target: TargetOption = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Closed loop: this many clients, each of which sends a request when its previous "
            "one is answered.",
            show_default="16",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Open loop: requests per second, sent whether or not answers arrive."
        ),
    ] = None,
    duration: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time to measure.")
    ] = 10.0,
    warmup: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Time under load before that.")
    ] = 1.0,
    signature: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="serving_default, recommend_excluding, similar_candidates or embed_query. Repeat "
            "it to alternate.",
            show_default="serving_default",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Queries per request.")] = 1,
    queries: Annotated[int, typer.Option(min=1, help="Number of different queries.")] = 1000,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="Deadline of a request.")
    ] = 5.0,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that send requests, for a fast server.")
    ] = 1,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Use the version with this label.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Use this version.")] = None,
    tls_ca: TlsCaOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model server under load with real queries of the evaluation split, over gRPC.

    With --rate, latency counts from the time when a request was due, so that a server that is too
    slow cannot hide it. The exit code is 1 if no request was answered.

    Example: two-tower loadtest -c movielens_100k --rate 200 --duration 30
    """
    if concurrency is not None and rate is not None:
        raise usage_error("--concurrency and --rate are two kinds of load: choose one")
    if rate is None and concurrency is None:
        concurrency = 16
    loaded = load_config(config, set_)
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.cli.served_model import serving_target
    from pipeline.runs.evaluation import evaluation_queries
    from serving.clients import RetrievalClient
    from serving.clients.model import ModelChoice
    from serving.loadtest import LoadPlan, build_requests, drive_in_processes

    sampled = evaluation_queries(loaded, queries)
    model = ModelChoice(loaded.serving.model_name, version, label)
    tls = tls_options(tls_ca, tls_certificate, tls_key, tls_name)
    with serving_target(loaded, config, target) as address:
        with RetrievalClient(
            address, model.name, model_version=version, version_label=label, tls=tls
        ) as client:
            metadata = client.metadata()
        requests = build_requests(
            metadata,
            model,
            sampled,
            signature or ["serving_default"],
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
            tls=tls,
        )
        with waiting(f"sending requests to {address} for {warmup + duration:g} s"):
            result = drive_in_processes(plan, processes)
    about = {
        "config": loaded.name,
        "server": target or "started for this test",
        "model_version": metadata.model_version,
        "signatures": signature or ["serving_default"],
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
    table = new_table("", show_header=False)
    table.add_column(justify="right")
    table.add_row("requests", f"{summary['requests']:,}")
    table.add_row("answers per second", f"{summary['throughput_per_s']:,.1f}")
    if about["queries_per_request"] > 1:
        queries = result.throughput * about["queries_per_request"]
        table.add_row("queries answered per second", f"{queries:,.1f}")
    for name, value in summary["latency_ms"].items():
        table.add_row(name, "" if value is None else f"{value:,.2f} ms")
    table.add_row("errors", f"{sum(summary['errors'].values()):,}")
    for name, count in summary["errors"].items():
        table.add_row(f"  {name}", f"{count:,}")
    print_table(table)
    for name, message in summary["error_messages"].items():
        say(f"{name}: {message}")
