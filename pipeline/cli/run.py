"""`two-tower run` and `two-tower index`: run the pipeline or a refresh of the index."""

import gc
import logging
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pipeline.cli.command import command
from pipeline.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    SpanOption,
    WaitOption,
    load_config,
    span_override,
)
from pipeline.cli.output import Verbosity, fail, log_to, print_json, say

if TYPE_CHECKING:
    from pipeline.cli.display import RunDisplay
    from pipeline.config.project import PipelineConfig
    from pipeline.errors import ComponentFailedError
    from pipeline.runs.history import RunRecord
    from pipeline.runs.state import InputState
    from pipeline.runs.summary import RunSummary

    Work = Callable[[PipelineConfig, str, RunDisplay], RunSummary]

log = logging.getLogger(__name__)

REFUSED = 3
_NOTHING_NEW = 4


@command
def run(
    config: ConfigOption,
    set_: SetOption = None,
    span: SpanOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run every component, without the cache.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run even if nothing is new, with the cache.")
    ] = False,
    wait_s: WaitOption = 0.0,
    detailed_exit_code: Annotated[
        bool, typer.Option("--detailed-exit-code", help="Exit with 4 if nothing is new.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the pipeline: ingest, validate, transform, train, evaluate, index, check and push.

    If inputs, settings and code are those of the served version, nothing is done.

    Exit codes: 0 a version was pushed, or nothing is new; 1 failed; 2 wrong usage; 3 refused by a
    gate (drift, evaluation, index or server).

    Example: two-tower run -c movielens_100k --set training.epochs=10
    """

    def work(loaded: "PipelineConfig", run_id: str, display: "RunDisplay") -> "RunSummary":
        from pipeline.runs.run import run as run_pipeline

        return run_pipeline(loaded, run_id, display, fresh=fresh)

    run_pipeline_command(
        load_config(config, [*(set_ or ()), *span_override(span)]),
        work,
        command="run",
        skip_unchanged=not (force or fresh),
        skipped_status=_NOTHING_NEW if detailed_exit_code else 0,
        wait_s=wait_s,
        as_json=as_json,
    )


@command
def index(
    config: ConfigOption,
    set_: SetOption = None,
    wait_s: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Refresh the catalogue: embed it with the last blessed model, build the index and push.

    Exit codes: 0 a version was pushed, or nothing changed; 1 failed; 2 wrong usage; 3 refused by a
    gate (index or server).

    Example: two-tower index -c movielens_100k
    """

    def work(loaded: "PipelineConfig", run_id: str, display: "RunDisplay") -> "RunSummary":
        from pipeline.runs.run import refresh_index

        return refresh_index(loaded, run_id, display)

    run_pipeline_command(
        load_config(config, set_), work, command="index", wait_s=wait_s, as_json=as_json
    )


def run_pipeline_command(
    config: "PipelineConfig",
    work: "Work",
    *,
    command: str,
    skip_unchanged: bool = False,
    skipped_status: int = 0,
    wait_s: float = 0.0,
    as_json: bool,
) -> None:
    """Call `work` under the run lock, then record and print the outcome of the run.

    Args:
        config: The configuration of the project.
        work: Function of the configuration, the run ID and the display, which runs the components.
            Its slow imports are inside, so that they happen while the display is shown.
        command: Name of the command in the run history.
        skip_unchanged: Whether to skip the run if nothing has changed since the last complete run.
        skipped_status: Exit status of a skipped run.
        wait_s: Maximum time to wait for another run of the configuration.
        as_json: Whether to print one JSON object instead of a table.

    Raises:
        typer.Exit: The run was skipped, failed or was refused by a gate.
    """
    from components.interactions.errors import IngestError
    from pipeline.runs.lock import run_lock

    with run_lock(config.run_dir, wait_s):
        try:
            inputs = _inputs(config, command)
            unchanged = _unchanged(config, inputs) if skip_unchanged else None
        except (IngestError, OSError) as error:
            _record_end(config, _begin(config, command, None), None, str(error))
            raise
        if unchanged is not None:
            _show_nothing_new(*unchanged, as_json=as_json)
            raise typer.Exit(skipped_status)
        _run_locked(config, work, command, inputs, as_json=as_json)


def _inputs(config: "PipelineConfig", command: str) -> "InputState | None":
    """Return the state of the input files, settings and code, or None without a catalogue file."""
    from pipeline.runs.history import refreshed_through
    from pipeline.runs.state import input_state, refresh_state

    if command == "run":
        return input_state(config, refreshed_through(config))
    # Without a catalogue, the refresh itself raises an error.
    return None if config.candidates.file is None else refresh_state(config)


def _begin(config: "PipelineConfig", command: str, inputs: "InputState | None") -> "RunRecord":
    from pipeline.runs.history import RunHistory, new_run_id
    from pipeline.runs.metadata import open_store

    return RunHistory(open_store(config), config.name).begin(new_run_id(), command, inputs)


def _unchanged(
    config: "PipelineConfig", inputs: "InputState | None"
) -> "tuple[InputState, RunRecord, int] | None":
    """Return the inputs, the last complete run and the served version; None if anything changed."""
    from pipeline.runs.history import RunHistory, newest_catalogue
    from pipeline.runs.metadata import has_metadata, open_store
    from pipeline.runs.state import input_state

    if inputs is None or not has_metadata(config):
        return None
    last, refreshes = RunHistory(open_store(config), config.name).since_last_complete()
    if last is None:
        return None
    if refreshes:
        # A refresh already serves the newer catalogue, so the new files need no training.
        inputs = input_state(config, newest_catalogue(config, [last]))
    version = _served_version(config)
    if (last.files, last.settings) != (inputs.files, inputs.settings) or version not in {
        record.summary.get("pushed_version") for record in (last, *refreshes)
    }:
        return None
    return inputs, last, version


def _show_nothing_new(
    inputs: "InputState", last: "RunRecord", version: int, *, as_json: bool
) -> None:
    if as_json:
        print_json({"config": last.config, "skipped": True, "same_as": last.to_json()})
    elif not Verbosity.quiet:
        through = f", through span {inputs.span}" if inputs.span else ""
        files = "input file" if inputs.num_files == 1 else "input files"
        say(
            f"nothing new: {inputs.num_files:,} {files}{through}, settings and code are those of "
            f"run {last.run_id}, which is served as version {version}. Use --force to run anyway"
        )


def _served_version(config: "PipelineConfig") -> int:
    """Return the newest complete version in the serving folder, or 0 if there is none."""
    from components.interactions.spans.pattern import list_files

    models = list_files(f"{config.serving_dir}/*/saved_model.pb")
    names = [model.path.split("/")[-2] for model in models]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _run_locked(
    config: "PipelineConfig",
    work: "Work",
    command: str,
    inputs: "InputState | None",
    *,
    as_json: bool,
) -> None:
    from pipeline.cli.display import show_summary

    record = _begin(config, command, inputs)
    log_path = config.run_dir / "logs" / f"{record.run_id}.log"
    problem = ""
    summary = None
    try:
        summary = _work_in_log(config, work, record.run_id, log_path)
    except Exception as error:
        problem = str(error) or type(error).__name__
        raise
    except BaseException as error:
        problem = type(error).__name__
        raise
    finally:
        _record_end(config, record, summary, problem)
    if as_json:
        print_json(summary.to_json())
    elif not Verbosity.quiet or summary.failure is not None:
        show_summary(summary, config, log_path)
    if summary.failure is not None:
        _fail(summary, summary.failure, log_path)


def _work_in_log(
    config: "PipelineConfig", work: "Work", run_id: str, log_path: Path
) -> "RunSummary":
    from pipeline.cli.display import RunDisplay

    with log_to(log_path) as terminal, RunDisplay(terminal, quiet=Verbosity.quiet) as display:
        # The imports create a million objects that live as long as the process. Scanning them
        # for garbage takes time and frees nothing.
        gc.disable()
        import pipeline.runs.run  # noqa: F401 - triggers the slow imports of `work`

        gc.freeze()
        gc.enable()
        try:
            return work(config, run_id, display)
        except OSError as error:
            log.exception("the run ended")
            raise OSError(f"{type(error).__name__}: {error}\nThe log is {log_path}") from error


def _record_end(
    config: "PipelineConfig", record: "RunRecord", summary: "RunSummary | None", problem: str
) -> None:
    from pipeline.runs.history import RunHistory
    from pipeline.runs.metadata import open_store

    # Open a new connection: TFX has used its own connections to the database in the meantime.
    history = RunHistory(open_store(config), config.name)
    if summary is None:
        history.end(record, "failed", problem, {})
    elif summary.failure is None:
        history.end(record, "complete", "", summary.to_json())
    else:
        problem = str(summary.failure)
        history.end(
            record, "refused" if summary.is_refused else "failed", problem, summary.to_json()
        )


def _fail(summary: "RunSummary", failure: "ComponentFailedError", log_path: Path) -> NoReturn:
    if summary.is_refused:
        # A gate reports one line per check, and these lines are wider than a terminal.
        lines = [
            textwrap.fill(line, 73, subsequent_indent="    ", break_on_hyphens=False)
            for line in failure.reason.splitlines()
        ]
        fail("\n".join([*lines, "Nothing was pushed."]), code=REFUSED)
    fail(f"{failure}\nThe log is {log_path}")
