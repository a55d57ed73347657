"""What the commands share that run components: the lock, the log, the display, the exit code."""

import gc
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.cli.console import fail

if TYPE_CHECKING:
    from pipeline.cli.run_display import RunDisplay
    from pipeline.config import PipelineConfig
    from pipeline.run import RunSummary

    Work = Callable[[PipelineConfig, str, RunDisplay], RunSummary]

_REFUSED = 3


def run_pipeline_command(config: "PipelineConfig", work: "Work", *, as_json: bool) -> None:
    """Does the work under the run lock, shows what came of it, and ends the command.

    Args:
        config: The use.
        work: Gets the configuration, the run's id and who is told of each component. It imports
            what it needs when it is called.
        as_json: One JSON object instead of a table.
    """
    from pipeline.run_lock import RunInProgressError, run_lock

    try:
        with run_lock(config.run_dir):
            _run_locked(config, work, as_json=as_json)
    except RunInProgressError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{config.run_dir} cannot be written: {error}")


def _run_locked(config: "PipelineConfig", work: "Work", *, as_json: bool) -> None:
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
        import pipeline.run  # noqa: F401 - for the work
        from components.timeline_example_gen.errors import IngestError
        from pipeline.config import ConfigError

        gc.freeze()
        gc.enable()
        try:
            summary = work(config, run_id, display)
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
