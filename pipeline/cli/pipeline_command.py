"""What the commands share that run components: the lock, the log, the display, the exit code."""

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import typer

from pipeline.cli.console import fail, stdout
from pipeline.cli.json_output import json_text

if TYPE_CHECKING:
    from pipeline.cli.run_display import RunDisplay
    from pipeline.config import PipelineConfig
    from pipeline.input_state import InputState
    from pipeline.local_runner import ComponentFailedError
    from pipeline.run import RunSummary
    from pipeline.run_history import RunRecord

    Work = Callable[[PipelineConfig, str, RunDisplay], RunSummary]

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

    from pipeline.config import ConfigError
    from pipeline.metadata_store import MetadataUnreachableError
    from pipeline.run_lock import RunInProgressError, run_lock

    try:
        with run_lock(config.run_dir, wait_s):
            inputs = _inputs(config, command)
            if skip_unchanged:
                _end_if_nothing_new(config, inputs, quiet=quiet, as_json=as_json)
            _run_locked(config, work, command, inputs, quiet=quiet, as_json=as_json)
    except RunInProgressError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{config.run_dir} cannot be written: {error}")
    except (ConfigError, MetadataUnreachableError) as error:
        fail(str(error))
    except StatusError as error:
        fail(f"ML Metadata cannot be used: {error}")


def _inputs(config: "PipelineConfig", command: str) -> "InputState | None":
    """Returns what a run would read; ends the command where a span is missing."""
    from components.timeline_example_gen.errors import IngestError
    from pipeline.input_state import input_state, refresh_state
    from pipeline.metadata_store import open_store
    from pipeline.refreshed_catalogue import refreshed_through
    from pipeline.run_history import RunHistory
    from pipeline.run_id import new_run_id

    try:
        if command == "run":
            return input_state(config, refreshed_through(config))
        # Without a catalogue the refresh itself says so.
        return None if config.data.candidates is None else refresh_state(config)
    except IngestError as error:
        history = RunHistory(open_store(config), config.name)
        history.end(history.begin(new_run_id(), command, None), "failed", str(error), {})
        fail(str(error))


def _end_if_nothing_new(
    config: "PipelineConfig", inputs: "InputState | None", *, quiet: bool, as_json: bool
) -> None:
    from pipeline.input_state import input_state
    from pipeline.metadata_store import has_metadata, open_store
    from pipeline.refreshed_catalogue import newest_catalogue
    from pipeline.run_history import RunHistory

    if inputs is None or not has_metadata(config):
        return
    last, refreshes = RunHistory(open_store(config), config.name).since_last_complete()
    if last is None:
        return
    if refreshes:
        # A refresh has brought a newer catalogue into service by itself: no reason to fit anew.
        inputs = input_state(config, newest_catalogue(config, [last]))
    version = _served_version(config)
    if (last.files, last.settings) != (inputs.files, inputs.settings) or version not in {
        record.summary.get("pushed_version") for record in (last, *refreshes)
    }:
        return
    if as_json:
        skipped = {"config": config.name, "skipped": True, "same_as": last.to_json()}
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
    from components.timeline_example_gen.file_listing import list_files

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
    from pipeline.cli.run_display import RunDisplay, show_summary
    from pipeline.cli.run_log import quiet as log_only
    from pipeline.metadata_store import open_store
    from pipeline.run_history import RunHistory
    from pipeline.run_id import new_run_id

    run_id = new_run_id()
    record = RunHistory(open_store(config), config.name).begin(run_id, command, inputs)
    log_path = config.run_dir / "logs" / f"{run_id}.log"
    problem = ""
    summary = None
    try:
        with log_only(log_path) as terminal, RunDisplay(terminal, quiet=quiet) as display:
            # Everything slow, and noisy, is imported here. A million objects come with it that
            # live as long as the process; looking for garbage among them, now and ever after, is
            # wasted time.
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


def _note_end(
    config: "PipelineConfig", record: "RunRecord", summary: "RunSummary | None", problem: str
) -> None:
    from pipeline.metadata_store import open_store
    from pipeline.run_history import RunHistory

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
        fail(f"{failure.reason}. Nothing was pushed.", code=_REFUSED)
    fail(f"{failure}\nThe log is {log_path}")
