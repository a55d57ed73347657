"""What the commands share that run components: the lock, the log, the display, the exit code."""

import contextlib
import gc
import logging
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from pipeline.cli.console import fail, stdout
from pipeline.cli.json_output import json_text

if TYPE_CHECKING:
    from pipeline.cli.run_display import RunDisplay
    from pipeline.config.project import PipelineConfig
    from pipeline.errors import ComponentFailedError
    from pipeline.runs.history import RunRecord
    from pipeline.runs.state import InputState
    from pipeline.runs.summary import RunSummary

    Work = Callable[[PipelineConfig, str, RunDisplay], RunSummary]

log = logging.getLogger(__name__)

_REFUSED = 3
_NOTHING_NEW = 4


def run_pipeline_command(
    config: "PipelineConfig",
    work: "Work",
    *,
    command: str,
    skip_unchanged: bool = False,
    wait_s: float = 0.0,
    quiet: bool = False,
    as_json: bool,
) -> None:
    """Does the work under the run lock, shows what came of it, and ends the command.

    Args:
        config: The use.
        work: Gets the configuration, the run's id and who is told of each component. It imports
            what it needs when it is called.
        command: What the history calls it.
        skip_unchanged: Whether to end at once where the last complete run saw the same.
        wait_s: How long another run of the configuration may go on before this one fails.
        quiet: Whether to say nothing of what goes well.
        as_json: One JSON object instead of a table, also where it is quiet.
    """
    from ml_metadata.errors import StatusError

    from components.interactions.errors import IngestError
    from pipeline.errors import ConfigError, MetadataUnreachableError, RunInProgressError
    from pipeline.runs.lock import run_lock

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(run_lock(config.run_dir, wait_s))
        except RunInProgressError as error:
            fail(str(error))
        except OSError as error:
            fail(f"{config.run_dir} cannot be written: {error}")
        try:
            try:
                inputs = _inputs(config, command)
                unchanged = _unchanged(config, inputs) if skip_unchanged else None
            except (IngestError, OSError) as error:
                _note_end(config, _begin(config, command, None), None, str(error))
                fail(str(error))
            if unchanged is not None:
                _end_with_nothing_new(*unchanged, quiet=quiet, as_json=as_json)
            _run_locked(config, work, command, inputs, quiet=quiet, as_json=as_json)
        except (ConfigError, MetadataUnreachableError) as error:
            fail(str(error))
        except StatusError as error:
            fail(f"ML Metadata cannot be used: {error}")


def _inputs(config: "PipelineConfig", command: str) -> "InputState | None":
    """Returns what a run would read.

    Raises:
        IngestError: A file or a span is missing.
    """
    from pipeline.runs.history import refreshed_through
    from pipeline.runs.state import input_state, refresh_state

    if command == "run":
        return input_state(config, refreshed_through(config))
    # Without a catalogue the refresh itself says so.
    return None if config.data.candidates is None else refresh_state(config)


def _begin(config: "PipelineConfig", command: str, inputs: "InputState | None") -> "RunRecord":
    from pipeline.runs.history import RunHistory, new_run_id
    from pipeline.runs.metadata import open_store

    return RunHistory(open_store(config), config.name).begin(new_run_id(), command, inputs)


def _unchanged(
    config: "PipelineConfig", inputs: "InputState | None"
) -> "tuple[InputState, RunRecord, int] | None":
    """Returns what was read before, by which run, and the version that is served of it.

    Returns:
        The three; None where something is new.
    """
    from pipeline.runs.history import RunHistory, newest_catalogue
    from pipeline.runs.metadata import has_metadata, open_store
    from pipeline.runs.state import input_state

    if inputs is None or not has_metadata(config):
        return None
    last, refreshes = RunHistory(open_store(config), config.name).since_last_complete()
    if last is None:
        return None
    if refreshes:
        # A refresh has brought a newer catalogue into service by itself: no reason to fit anew.
        inputs = input_state(config, newest_catalogue(config, [last]))
    version = _served_version(config)
    if (last.files, last.settings) != (inputs.files, inputs.settings) or version not in {
        record.summary.get("pushed_version") for record in (last, *refreshes)
    }:
        return None
    return inputs, last, version


def _end_with_nothing_new(
    inputs: "InputState", last: "RunRecord", version: int, *, quiet: bool, as_json: bool
) -> NoReturn:
    if as_json:
        skipped = {"config": last.config, "skipped": True, "same_as": last.to_json()}
        print(json_text(skipped))
    elif not quiet:
        through = f", through span {inputs.span}" if inputs.span else ""
        files = "input file" if inputs.num_files == 1 else "input files"
        stdout().print(
            f"nothing new: {inputs.num_files:,} {files}{through}, settings and code are those of "
            f"run {last.run_id}, which is served as version {version}. "
            "`--force` runs all the same",
            soft_wrap=True,
            markup=False,
        )
    raise typer.Exit(_NOTHING_NEW)


def _served_version(config: "PipelineConfig") -> int:
    """Returns the newest version that a server finds; 0 where there is none."""
    from components.interactions.spans.listing import list_files

    models = list_files(f"{config.serving_dir}/*/saved_model.pb")
    names = [model.path.split("/")[-2] for model in models]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _run_locked(
    config: "PipelineConfig",
    work: "Work",
    command: str,
    inputs: "InputState | None",
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    from pipeline.cli.run_display import show_summary

    record = _begin(config, command, inputs)
    log_path = config.run_dir / "logs" / f"{record.run_id}.log"
    problem = ""
    summary = None
    try:
        summary, problem = _work_in_log(config, work, record.run_id, log_path, quiet=quiet)
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
        raise
    finally:
        _note_end(config, record, summary, problem)
    if summary is None:
        fail(problem)
    if as_json:
        print(json_text(summary.to_json()))
    elif not quiet or summary.failure is not None:
        show_summary(summary, config, log_path)
    if summary.failure is not None:
        _fail(summary, summary.failure, log_path)


def _work_in_log(
    config: "PipelineConfig", work: "Work", run_id: str, log_path: Path, *, quiet: bool
) -> "tuple[RunSummary | None, str]":
    """Does the work; returns what came of it, or None and what is wrong."""
    from pipeline.cli.run_display import RunDisplay
    from pipeline.cli.run_log import quiet as log_only

    with contextlib.ExitStack() as logged:
        try:
            terminal = logged.enter_context(log_only(log_path))
        except OSError as error:
            return None, f"{log_path} cannot be written: {error}"
        display = logged.enter_context(RunDisplay(terminal, quiet=quiet))
        # Everything slow, and noisy, is imported here. A million objects come with it that live as
        # long as the process; looking for garbage among them, now and ever after, is wasted time.
        gc.disable()
        import pipeline.runs.run  # noqa: F401 - for the work
        from components.interactions.errors import IngestError
        from pipeline.errors import ConfigError

        gc.freeze()
        gc.enable()
        try:
            return work(config, run_id, display), ""
        except (ConfigError, IngestError) as error:
            return None, str(error)
        except OSError as error:
            log.exception("the run ended")
            return None, f"{type(error).__name__}: {error}\nThe log is {log_path}"


def _note_end(
    config: "PipelineConfig", record: "RunRecord", summary: "RunSummary | None", problem: str
) -> None:
    from pipeline.runs.history import RunHistory
    from pipeline.runs.metadata import open_store

    # Anew: the libraries have had connections of their own to the database meanwhile.
    history = RunHistory(open_store(config), config.name)
    if summary is None:
        history.end(record, "failed", problem, {})
    elif summary.failure is None:
        history.end(record, "complete", "", summary.to_json())
    else:
        history.end(
            record,
            "refused" if summary.is_refused else "failed",
            str(summary.failure),
            summary.to_json(),
        )


def _fail(summary: "RunSummary", failure: "ComponentFailedError", log_path: object) -> NoReturn:
    if summary.is_refused:
        # A gate gives one line per check and advice, which are longer than a terminal is wide.
        lines = [
            textwrap.fill(line, 73, subsequent_indent="    ", break_on_hyphens=False)
            for line in failure.reason.splitlines()
        ]
        fail("\n".join([*lines, "Nothing was pushed."]), code=_REFUSED)
    fail(f"{failure}\nThe log is {log_path}")
