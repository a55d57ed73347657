"""`two-tower compile`: the pipeline as a file for Kubeflow Pipelines, Vertex AI or Airflow."""

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import fail, stderr
from pipeline.cli.options import ConfigOption, SetOption, load_config


class RunnerName(str, Enum):
    """Who will run it."""

    kubeflow = "kubeflow"
    vertex = "vertex"
    airflow = "airflow"


_SUFFIXES = {
    RunnerName.kubeflow: (".yaml", ".yml"),
    RunnerName.vertex: (".json",),
    RunnerName.airflow: (".two-tower.json",),
}


def compile_(
    config: ConfigOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to be written.")
    ],
    runner: Annotated[
        RunnerName,
        typer.Option(
            help="kubeflow: pipeline spec 2.1, .yaml. vertex: job, .json. airflow: plan of a DAG, "
            ".two-tower.json."
        ),
    ] = RunnerName.kubeflow,
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="kubeflow, vertex: of every step, with its tag."),
    ] = None,
    pipeline_root: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="kubeflow, vertex: of everything a run leaves, gs://BUCKET/….",
        ),
    ] = None,
    data_directory: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Where relative paths of `data` start unless a run says otherwise; the image's "
            "/app if absent.",
        ),
    ] = None,
    serving_directory: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Base path of the served versions; `serving.directory`, or below the root.",
        ),
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMPONENT=KEY:VALUE,…",
            help="kubeflow, vertex: what a step is given, as Trainer=cpu:4,memory:16G,gpu:1; keys "
            "cpu, memory, cpu_request, memory_request, gpu, gpu_type. Again for another component.",
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="'M H D M W'", help="airflow: when it runs; only triggered if absent."
        ),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Compile the pipeline for Kubeflow Pipelines, Vertex AI or Airflow.

    On Kubeflow and Vertex a run takes the parameters `data_directory`, `epochs` and, where `data`
    has spans, `span`.
    """
    if not output.name.endswith(_SUFFIXES[runner]):
        fail(f"-o must end in {' or '.join(_SUFFIXES[runner])} for {runner.value}, got {output}")
    if runner is not RunnerName.airflow and not (image and pipeline_root):
        fail(f"--runner {runner.value} needs --image and --pipeline-root")
    if runner is RunnerName.airflow and resources:
        fail("--resources is for kubeflow and vertex; Airflow runs steps where its workers are")
    loaded = load_config(config, set_)
    from pipeline.cli.run_log import quiet

    problem = text = ""
    with quiet(loaded.run_dir / "logs" / "compile.log"):
        from components.interactions.errors import IngestError
        from pipeline.config.file import find
        from pipeline.errors import ConfigError
        from pipeline.orchestrators.airflow.plan import airflow_plan
        from pipeline.orchestrators.kubeflow.compile import (
            ROOT_MUST,
            compile_pipeline,
            is_cluster_root,
        )
        from pipeline.orchestrators.kubeflow.resources import KUBERNETES_GPU, parse_resources

        try:
            if runner is not RunnerName.airflow and not is_cluster_root(pipeline_root or ""):
                problem = f"--pipeline-root {ROOT_MUST}; got {pipeline_root}"
            elif runner is RunnerName.airflow:
                path = find(config).resolve()
                text = airflow_plan(loaded, path, set_ or (), _two_tower(), schedule)
            else:
                is_vertex = runner is RunnerName.vertex
                # Vertex AI knows GPUs by their models alone.
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
        except (ConfigError, IngestError) as error:
            problem = str(error)
    if problem:
        fail(problem)
    # Airflow reads its folder every half minute, by the suffix.
    incoming = output.with_name(f".{output.name}.incoming")
    try:
        incoming.write_text(text, encoding="utf-8")
        os.replace(incoming, output)
    except OSError as error:
        fail(f"{output} cannot be written: {error}")
    stderr().print(f"wrote {output}", markup=False)


def _two_tower() -> list[str]:
    """Returns the command of this environment, to be run from any folder."""
    return [str(Path(sys.executable).with_name("two-tower"))]
