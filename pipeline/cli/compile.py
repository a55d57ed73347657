"""`two-tower compile` and `two-tower submit`: run the pipeline on a cluster or with Airflow."""

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import command, usage_error
from pipeline.cli.options import ConfigOption, JsonOption, SetOption, load_config
from pipeline.cli.output import fail, log_to, note, print_json, say


class RunnerName(str, Enum):
    """The system that runs the compiled pipeline."""

    kubeflow = "kubeflow"
    vertex = "vertex"
    airflow = "airflow"


_SUFFIXES = {
    RunnerName.kubeflow: (".yaml", ".yml"),
    RunnerName.vertex: (".json",),
    RunnerName.airflow: (".two-tower.json",),
}
_CLUSTER = "Kubeflow and Vertex"


@command
def compile_(
    config: ConfigOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    runner: Annotated[
        RunnerName,
        typer.Option(
            help="kubeflow writes a pipeline spec 2.1 (.yaml), vertex a job (.json), airflow the "
            "plan of a DAG (.two-tower.json)."
        ),
    ] = RunnerName.kubeflow,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE", help="Image of all steps, with its tag.", rich_help_panel=_CLUSTER
        ),
    ] = None,
    pipeline_root: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Location of all outputs, such as gs://BUCKET/runs.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    data_directory: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Location that relative input paths start from, unless a run overrides it; /app "
            "of the image if absent.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    serving_directory: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Location of the served versions; `serving.directory`, or a folder in the root, "
            "if absent.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMPONENT=KEY:VALUE,…",
            help="Resources of a step, such as Trainer=cpu:4,memory:16G,gpu:1. Keys: cpu, memory, "
            "cpu_request, memory_request, gpu, gpu_type. Repeat it for further components.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="'M H D M W'",
            help="Cron schedule of the DAG; if absent, it is only triggered.",
            rich_help_panel="Airflow",
        ),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Compile the pipeline for Kubeflow Pipelines, Vertex AI or Airflow.

    On Kubeflow and Vertex, a run has the parameters data_directory, epochs and, if the inputs have
    spans, span.

    Example: two-tower compile -c clicks -o clicks.yaml --image registry/two-tower:1
    --pipeline-root gs://bucket/runs
    """
    if not output.name.endswith(_SUFFIXES[runner]):
        suffixes = " or ".join(_SUFFIXES[runner])
        raise usage_error(f"-o must end in {suffixes} for {runner.value}, got {output}")
    is_airflow = runner is RunnerName.airflow
    if not is_airflow and not (image and pipeline_root):
        raise usage_error(f"--runner {runner.value} needs --image and --pipeline-root")
    if is_airflow and resources:
        raise usage_error("--resources is for kubeflow and vertex; Airflow's workers run the steps")
    loaded = load_config(config, set_)
    with log_to(loaded.run_dir / "logs" / "compile.log"):
        from pipeline.config.file import find
        from pipeline.errors import ConfigError
        from pipeline.orchestrators.airflow.plan import airflow_plan
        from pipeline.orchestrators.kubeflow.compile import (
            ROOT_MUST,
            compile_pipeline,
            is_cluster_root,
        )
        from pipeline.orchestrators.kubeflow.resources import KUBERNETES_GPU, parse_resources

        if is_airflow:
            two_tower = str(Path(sys.executable).with_name("two-tower"))
            path = find(config).resolve()
            text = airflow_plan(loaded, path, set_ or (), [two_tower], schedule)
        elif not is_cluster_root(pipeline_root or ""):
            raise ConfigError(f"--pipeline-root {ROOT_MUST}; got {pipeline_root}")
        else:
            is_vertex = runner is RunnerName.vertex
            # On Vertex AI, a GPU type is always a model name, so there is no default.
            gpu_type = None if is_vertex else KUBERNETES_GPU
            text = compile_pipeline(
                loaded,
                "vertex" if is_vertex else "kubeflow",
                image or "",
                pipeline_root or "",
                data_directory,
                serving_directory,
                parse_resources(resources or (), gpu_type),
            )
    # Airflow scans its folder every 30 seconds, so the file must be replaced atomically.
    incoming = output.with_name(f".{output.name}.incoming")
    try:
        incoming.write_text(text, encoding="utf-8")
        os.replace(incoming, output)
    except OSError as error:
        fail(f"{output} cannot be written: {error}")
    note(f"wrote {output}")


@command
def submit(
    package: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML file that `two-tower compile` wrote.")
    ],
    host: Annotated[str, typer.Option(metavar="URL", help="Address of Kubeflow Pipelines' API.")],
    experiment: Annotated[
        str, typer.Option(metavar="NAME", help="Experiment; created if absent.")
    ] = "two-tower",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run; that of the file if absent."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Parameter of the run."),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(
            metavar="'M H D M W'",
            help="Create a recurring run with this schedule, in UTC. Runs do not overlap, and "
            "missed ones are not caught up.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete recurring runs with the same name.")
    ] = False,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Your namespace, if Kubeflow has several users."),
    ] = None,
    service_account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Kubernetes service account of the steps.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with a bearer token.")
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM file of the authority that signed the server's certificate."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a run or a recurring run of a compiled pipeline on Kubeflow.

    Example: two-tower submit clicks.yaml --host http://localhost:8080 -p epochs=10
    """
    from pipeline.orchestrators.kubeflow.submit import Server, read_parameters
    from pipeline.orchestrators.kubeflow.submit import submit as submit_package

    token = token_file.read_text(encoding="utf-8").strip() if token_file else None
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
    if as_json:
        summary = {"kind": done.kind, "name": done.name, "id": done.identity}
        print_json({**summary, "replaced": list(done.replaced)})
        return
    say(f"created the {done.kind} {done.name}: {done.identity}")
    for identity in done.replaced:
        say(f"deleted the recurring run {identity}")
