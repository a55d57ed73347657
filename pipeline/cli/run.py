"""`two-tower run`: the whole pipeline on this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import (
    ConfigOption,
    JsonOption,
    QuietOption,
    SetOption,
    SpanOption,
    WaitOption,
    load_config,
    span_override,
)
from pipeline.cli.pipeline_command import run_pipeline_command

if TYPE_CHECKING:
    from pipeline.cli.run_display import RunDisplay
    from pipeline.config.project import PipelineConfig
    from pipeline.runs.summary import RunSummary


def run(
    config: ConfigOption,
    set_: SetOption = None,
    span: SpanOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run every component, also those that are cached.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Run also where nothing is new; what is cached stays so."),
    ] = False,
    wait_s: WaitOption = 0.0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the pipeline: ingest, validate, transform, train, evaluate, index, check, push.

    Exit codes: 0 pushed, 1 failed, 3 refused by a gate: drift, evaluation, index or server; 4
    nothing is new since the last run, so nothing was done.
    """

    def work(loaded: "PipelineConfig", run_id: str, display: "RunDisplay") -> "RunSummary":
        from pipeline.runs.run import run as run_pipeline

        return run_pipeline(loaded, run_id, display, fresh=fresh)

    overrides = [*(set_ or ()), *span_override(span)]
    run_pipeline_command(
        load_config(config, overrides),
        work,
        command="run",
        skip_unchanged=not (force or fresh),
        wait_s=wait_s,
        quiet=quiet,
        as_json=as_json,
    )
