"""`two-tower compile`: the pipeline as a file for Kubeflow Pipelines or Vertex AI."""

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


def compile_(
    config: ConfigOption,
    image: Annotated[
        str, typer.Option(metavar="IMAGE", help="Container image of every step, with its tag.")
    ],
    pipeline_root: Annotated[
        str,
        typer.Option(metavar="URI", help="Of everything a run leaves; every step must reach it."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to be written.")
    ],
    runner: Annotated[
        RunnerName, typer.Option(help="kubeflow: pipeline spec 2.1, YAML. vertex: job, JSON.")
    ] = RunnerName.kubeflow,
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
    set_: SetOption = None,
) -> None:
    """Compile the pipeline for Kubeflow Pipelines or Vertex AI.

    A run takes the parameters `data_directory`, `epochs` and, where `data` has spans, `span`.
    """
    suffixes = {".json"} if runner is RunnerName.vertex else {".yaml", ".yml"}
    if output.suffix not in suffixes:
        fail(f"-o must end in {' or '.join(sorted(suffixes))} for {runner.value}, got {output}")
    loaded = load_config(config, set_)
    from pipeline.cli.run_log import quiet

    problem = ""
    with quiet(loaded.run_dir / "logs" / "compile.log"):
        from pipeline.config import ConfigError
        from pipeline.kubeflow.compile import compile_pipeline

        try:
            text = compile_pipeline(
                loaded, runner.value, image, pipeline_root, data_directory, serving_directory
            )
        except ConfigError as error:
            problem = str(error)
    if problem:
        fail(problem)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{output} cannot be written: {error}")
    stderr().print(f"wrote {output}", markup=False)
