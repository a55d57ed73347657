"""`two-tower compile` and `two-tower submit`: run the pipeline on a cluster or with Airflow."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import log_to, note, print_json, say

_SUFFIXES = {"kubeflow": (".yaml", ".yml"), "vertex": (".json",), "airflow": (".two-tower.json",)}
_CLUSTER = typer.Option(rich_help_panel="Kubeflow and Vertex AI")
_AIRFLOW = typer.Option(rich_help_panel="Airflow")


@command
def compile_(
    project: Project,
    output: Annotated[Path, typer.Option("--output", "-o")],
    runner: Literal["kubeflow", "vertex", "airflow"] = "kubeflow",
    image: Annotated[str | None, _CLUSTER] = None,
    pipeline_root: Annotated[str | None, _CLUSTER] = None,
    data_directory: Annotated[str | None, _CLUSTER] = None,
    serving_directory: Annotated[str | None, _CLUSTER] = None,
    resources: Annotated[list[str] | None, _CLUSTER] = None,
    schedule: Annotated[str | None, _AIRFLOW] = None,
) -> None:
    """Compile the pipeline for Kubeflow Pipelines, Vertex AI or Airflow.

    On Kubeflow and Vertex AI, a run has the parameters data_directory, epochs and, if the inputs
    have spans, span.

    Example: two-tower compile -c clicks -o clicks.yaml --image registry/two-tower:1
    --pipeline-root gs://bucket/runs

    Args:
        output (FILE): File to write: a pipeline spec (.yaml) for kubeflow, a job (.json) for
            vertex, or the plan of a DAG (.two-tower.json) for airflow.
        runner: System that runs the pipeline.
        image (IMAGE): Image of all steps, with its tag.
        pipeline_root (URI): Location of all outputs, such as gs://BUCKET/runs.
        data_directory (URI): Location that relative input paths start from. A run can override it.
            By default, it is /app in the image.
        serving_directory (URI): Location of the served versions. By default, it is
            `serving.directory`, or a folder in the pipeline root.
        resources (COMPONENT=KEY:VALUE,…): Resources of a component, such as
            Trainer=cpu:4,memory:16G,gpu:1. The keys are cpu, memory, cpu_request, memory_request,
            gpu and gpu_type. Repeat it for more components.
        schedule ('M H D M W'): Cron schedule of the DAG. By default, the DAG only runs when it is
            triggered.
    """
    if not output.name.endswith(_SUFFIXES[runner]):
        suffixes = " or ".join(_SUFFIXES[runner])
        raise typer.BadParameter(f"-o must end in {suffixes} for {runner}, got {output}")
    is_airflow = runner == "airflow"
    if not is_airflow and not (image and pipeline_root):
        raise typer.BadParameter(f"--runner {runner} needs --image and --pipeline-root")
    if is_airflow and resources:
        raise typer.BadParameter(
            "--resources is for kubeflow and vertex; Airflow's workers run the steps"
        )
    loaded = project.load()
    with log_to(loaded.run_dir / "logs" / "compile.log"):
        from components.files import write_text
        from pipeline.config.file import find
        from pipeline.errors import ConfigError
        from pipeline.orchestrators.airflow.plan import airflow_plan
        from pipeline.orchestrators.kubeflow.compile import (
            ROOT_MUST,
            compile_pipeline,
            is_cluster_root,
        )
        from pipeline.orchestrators.kubeflow.resources import KUBERNETES_GPU, parse_resources

        if runner == "airflow":
            two_tower = str(Path(sys.executable).with_name("two-tower"))
            path = find(project.config).resolve()
            text = airflow_plan(loaded, path, project.set_ or (), [two_tower], schedule)
        elif not is_cluster_root(pipeline_root or ""):
            raise ConfigError(f"--pipeline-root {ROOT_MUST}; got {pipeline_root}")
        else:
            # On Vertex AI, a GPU type is always a model name, so there is no default.
            gpu_type = None if runner == "vertex" else KUBERNETES_GPU
            text = compile_pipeline(
                loaded,
                runner,
                image or "",
                pipeline_root or "",
                data_directory,
                serving_directory,
                parse_resources(resources or (), gpu_type),
            )
    # Airflow scans its folder every 30 seconds, so the file must be replaced atomically.
    write_text(output, text)
    note(f"wrote {output}")


@command
def submit(
    package: Annotated[Path, typer.Argument()],
    host: str,
    experiment: str = "two-tower",
    name: str | None = None,
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p")] = None,
    cron: str | None = None,
    replace: bool = False,
    namespace: str | None = None,
    service_account: str | None = None,
    token_file: Path | None = None,
    ca_file: Path | None = None,
    as_json: bool = False,
) -> None:
    """Create a run or a recurring run of a compiled pipeline on Kubeflow.

    Example: two-tower submit clicks.yaml --host http://localhost:8080 -p epochs=10

    Args:
        package (FILE): YAML file that `two-tower compile` wrote.
        host (URL): Address of the API of Kubeflow Pipelines.
        experiment (NAME): Experiment of the run, which is created if it does not exist.
        name (NAME): Name of the run. By default, it is the name of the file.
        parameter (NAME=VALUE): Parameter of the run. Repeat it for more parameters.
        cron ('M H D M W'): Create a recurring run with this schedule, in UTC. Runs do not overlap,
            and missed runs are not caught up.
        replace: Delete recurring runs with the same name.
        namespace (NAME): Your namespace, if Kubeflow has several users.
        service_account (NAME): Kubernetes service account of the steps.
        token_file (FILE): File with a bearer token.
        ca_file (FILE): PEM file of the authority that signed the server's certificate.
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
