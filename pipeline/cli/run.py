"""`two-tower run`: the whole pipeline on this machine."""

import gc
import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import fail
from pipeline.cli.options import ConfigOption, JsonOption, SetOption, load_config

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig
    from pipeline.run import RunSummary

_REFUSED = 3


def run(
    config: ConfigOption,
    set_: SetOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run every component, also those that are cached.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the pipeline: ingest, validate, transform, train, evaluate, index, check, push.

    Exit codes: 0 pushed, 1 failed, 3 refused by the evaluation or the serving gate.
    """
    from pipeline.run_lock import RunInProgressError, run_lock

    loaded = load_config(config, set_)
    try:
        with run_lock(loaded.run_dir):
            _run_locked(loaded, fresh=fresh, as_json=as_json)
    except RunInProgressError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{loaded.run_dir} cannot be written: {error}")


def _run_locked(config: "PipelineConfig", *, fresh: bool, as_json: bool) -> None:
    from pipeline.cli.run_display import RunDisplay, show_summary
    from pipeline.cli.run_log import quiet
    from pipeline.run_id import new_run_id

    run_id = new_run_id()
    log_path = config.run_dir / "logs" / f"{run_id}.log"
    problem = ""
    with quiet(log_path) as terminal, RunDisplay(terminal) as display:
        # Everything slow, and noisy, is imported here. A million objects come with it that live as
        # long as the process; looking for garbage among them, now and ever after, is wasted time.
        gc.disable()
        from components.timeline_example_gen.errors import IngestError
        from pipeline.config import ConfigError
        from pipeline.run import run as run_pipeline

        gc.freeze()
        gc.enable()
        try:
            summary = run_pipeline(config, run_id, display, fresh=fresh)
        except (ConfigError, IngestError) as error:
            problem = str(error)
    if problem:
        fail(problem)
    if as_json:
        print(json.dumps(summary.to_json()))
    else:
        show_summary(summary, config, log_path)
    _exit(summary, log_path)


def _exit(summary: "RunSummary", log_path: object) -> None:
    if summary.failure is None:
        return
    from components.blessings import NotBlessedError

    if isinstance(summary.failure.__cause__, NotBlessedError):
        fail(f"{summary.failure.reason}. Nothing was pushed.", code=_REFUSED)
    fail(f"{summary.failure}\nThe log is {log_path}")
