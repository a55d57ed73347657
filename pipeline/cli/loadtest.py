"""`two-tower loadtest`: drive a model server with real queries and measure its answers."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.console import fail, stderr, stdout
from pipeline.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    TlsCaOption,
    TlsCertificateOption,
    TlsKeyOption,
    TlsNameOption,
    load_config,
    tls_options,
)

if TYPE_CHECKING:
    from serving.loadtest import LoadResult

_BUSY = 0.85


def loadtest(
    config: ConfigOption,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="gRPC address of a running server; without it the last push is served to ask.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Closed loop: so many clients, each asks when it is answered."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Open loop: requests a second, whether answers come or not."),
    ] = None,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds to measure.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds of load before that.")] = 1.0,
    signature: Annotated[
        list[str] | None,
        typer.Option(
            help="serving_default, recommend_excluding, similar_candidates or embed_query; "
            "several take turns.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Queries in a request.")] = 1,
    queries: Annotated[int, typer.Option(min=1, help="Different queries to ask.")] = 1000,
    timeout: Annotated[float, typer.Option(min=0.001, help="Deadline of a request, in s.")] = 5.0,
    processes: Annotated[
        int, typer.Option(min=1, help="Drivers, for a server that outruns one of them.")
    ] = 1,
    label: Annotated[
        str | None, typer.Option(help="Ask the version with this label, such as stable.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Ask this version.")] = None,
    tls_ca: TlsCaOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drive a model server with real queries of the evaluation split, over gRPC.

    Prints answers a second, latencies and errors. With --rate, latency counts from the time when
    a request was due, so that a server that does not keep up cannot hide it. The status is 1 if
    nothing was answered.
    """
    loaded = load_config(config, set_)
    if concurrency is not None and rate is not None:
        fail("--concurrency and --rate are two kinds of load: choose one")
    if rate is None and concurrency is None:
        concurrency = 16
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.cli.served_model import serving_target
    from pipeline.runs.evaluation_queries import (
        NoExamplesError,
        evaluation_queries,
        newest_examples,
    )
    from serving.clients import RetrievalClient
    from serving.clients.model import ModelChoice
    from serving.errors import ServingError
    from serving.loadtest import LoadPlan, build_requests, drive_in_processes

    try:
        examples = newest_examples(loaded)
    except NoExamplesError as error:
        fail(f"{error}; run `two-tower run --config {config}` first")
    try:
        model = ModelChoice(loaded.serving.model_name, version, label)
        tls = tls_options(tls_ca, tls_certificate, tls_key, tls_name)
        with serving_target(loaded, config, server, "--server") as target:
            with RetrievalClient(
                target, model.name, model_version=version, version_label=label, tls=tls
            ) as client:
                metadata = client.metadata()
            requests = build_requests(
                metadata,
                model,
                evaluation_queries(loaded, examples, queries),
                signature or ["serving_default"],
                batch_size=batch,
                query_id_name=loaded.columns.query_id,
                candidate_id_name=loaded.columns.candidate_id,
            )
            plan = LoadPlan(
                target,
                requests,
                duration,
                concurrency=concurrency,
                rate=rate,
                warmup_s=warmup,
                timeout_s=timeout,
                tls=tls,
            )
            with stderr().status(f"asking {target} for {warmup + duration:g} s"):
                result = drive_in_processes(plan, processes)
    except ServingError as error:
        fail(str(error))
    about = {
        "config": loaded.name,
        "server": server or "started for this test, on this machine",
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
        stderr().print(
            f"the driver itself was busy {result.driver_busy:.0%} of the time, so these figures "
            "may be its limit and not the server's: try more --processes, or a lower --rate",
            style="yellow",
        )
    if as_json:
        import json

        print(json.dumps({**about, **summary}))
        return
    from rich.table import Table

    load = (
        f"{about['concurrency']} clients, each asks when it is answered"
        if about["concurrency"]
        else f"{about['rate_per_s']:g} requests/s, latency from the time when each was due"
    )
    stdout().print(f"{load}; model version {about['model_version']}")
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests", f"{summary['requests']:,}")
    table.add_row("answers a second", f"{summary['throughput_per_s']:,.1f}")
    if about["queries_per_request"] > 1:
        queries = result.throughput * about["queries_per_request"]
        table.add_row("queries answered a second", f"{queries:,.1f}")
    for name, value in summary["latency_ms"].items():
        table.add_row(name, "" if value is None else f"{value:,.2f} ms")
    table.add_row("errors", f"{sum(summary['errors'].values()):,}")
    for name, count in summary["errors"].items():
        table.add_row(f"  {name}", f"{count:,}")
    stdout().print(table)
    for name, message in summary["error_messages"].items():
        stdout().print(f"{name}: {message}", markup=False, soft_wrap=True)
