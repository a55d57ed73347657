"""`two-tower submit`: a compiled pipeline to Kubeflow Pipelines."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import fail, stdout
from pipeline.cli.options import JsonOption


def submit(
    package: Annotated[Path, typer.Argument(metavar="FILE", help="As `compile` wrote it, YAML.")],
    host: Annotated[str, typer.Option(metavar="URL", help="Of Kubeflow Pipelines' API.")],
    experiment: Annotated[
        str, typer.Option(metavar="NAME", help="Made if it is not there.")
    ] = "two-tower",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run; the file's name if absent.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Of the run."),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(
            metavar="'M H D M W'",
            help="Create a recurring run: one at a time, missed times are not caught up. UTC.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove recurring runs of the same name.")
    ] = False,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Yours, where there are several users.")
    ] = None,
    service_account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of Kubernetes, for the steps.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds a bearer token.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM of the server's authority.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a run of a compiled pipeline on Kubeflow, or one that recurs."""
    import json

    from pipeline.errors import SubmitError
    from pipeline.orchestrators.kubeflow.submit import Server, read_parameters
    from pipeline.orchestrators.kubeflow.submit import submit as submit_package

    try:
        token = token_file.read_text(encoding="utf-8").strip() if token_file else None
    except OSError as error:
        fail(f"{token_file} cannot be read: {error}")
    try:
        done = submit_package(
            package,
            Server(host, namespace, token, str(ca_file) if ca_file else None),
            experiment=experiment,
            name=name or package.stem,
            parameters=read_parameters(package, parameter or ()),
            cron=cron,
            replace=replace,
            service_account=service_account,
        )
    except SubmitError as error:
        fail(str(error))
    if as_json:
        summary = {"kind": done.kind, "name": done.name, "id": done.identity}
        print(json.dumps({**summary, "replaced": list(done.replaced)}))
    else:
        stdout().print(f"created the {done.kind} {done.name}: {done.identity}", markup=False)
        for identity in done.replaced:
            stdout().print(f"removed the recurring run {identity}", markup=False)
