"""`two-tower run`, `index` and `component`: run the pipeline, an index refresh or one component."""

import contextlib
import gc
import logging
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project, span_override
from pipeline.cli.output import Verbosity, fail, log_to, note, print_json, say
from pipeline.releases.answering_model import other_stable_version, pushed_versions

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.runs.history import RunHistory, RunRecord, RunState
    from pipeline.runs.state import InputState
    from pipeline.runs.summary import RunSummary

log = logging.getLogger(__name__)

_REFUSED = 3
_NOTHING_NEW = 4
# An orchestrator may start a component while the previous one still holds the run lock.
_COMPONENT_WAIT_S = 30.0


@command
def run(
    project: Project,
    span: str | None = None,
    fresh: bool = False,
    force: bool = False,
    name: str = "",
    push: Annotated[bool | None, typer.Option("--push/--no-push", show_default=False)] = None,
    wait_s: float = 0.0,
    detailed_exit_code: bool = False,
    as_json: bool = False,
) -> None:
    """Run the pipeline: ingest, validate, transform, train, evaluate, index, check and push.

    If the inputs, settings and code are still those of the served version, the run is skipped. A
    run with --set or --name is an experiment: without --push, it changes nothing that is served, is
    never compared with, and accepts no spans.

    Exit codes: 0 a version was pushed, or nothing is new; 1 failed; 2 wrong usage; 3 refused by a
    gate (drift, evaluation, index, server or catalogue).

    Example: two-tower run -c movielens_100k --set training.epochs=10 --name longer

    Args:
        fresh: Run all components, even if nothing is new, without cached results.
        force: Run even if nothing is new, but use cached results.
        name (EXPERIMENT): Name of the experiment in `two-tower runs`.
        push: Push the model if the gates accept it, or not. By default, experiments do not push.
        detailed_exit_code: Exit with 4 if nothing is new.
    """
    overrides = span_override(span)
    is_experiment = bool(project.set_ or name) if push is None else not push
    always = force or fresh or is_experiment
    run_pipeline_command(
        project.load(*overrides),
        "run",
        overrides=[*(project.set_ or ()), *overrides],
        name=name,
        is_experiment=is_experiment,
        fresh=fresh,
        skipped_status=None if always else _NOTHING_NEW if detailed_exit_code else 0,
        wait_s=wait_s,
        as_json=as_json,
    )


@command
def index(project: Project, wait_s: float = 0.0, as_json: bool = False) -> None:
    """Refresh the catalogue: embed it with the last pushed model, build the index and push.

    Exit codes: 0 a version was pushed, or nothing changed; 1 failed; 2 wrong usage; 3 refused by a
    gate (index, server or catalogue).

    Example: two-tower index -c movielens_100k
    """
    overrides = project.set_ or ()
    run_pipeline_command(
        project.load(), "index", overrides=overrides, wait_s=wait_s, as_json=as_json
    )


@command
def component(
    name: Annotated[str, typer.Argument()], run_id: str, project: Project, span: str | None = None
) -> None:
    """Run one component. An orchestrator calls this for each component, in order.

    Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused by a gate.

    Example: two-tower component Trainer --run-id 20261130 -c clicks

    Args:
        name (NAME): Name of the component, as `run` shows it.
        run_id (ID): ID of the run, which is the same for all of its components.
    """
    from pipeline.errors import ComponentFailedError

    loaded = project.load(*span_override(span))
    log_path = loaded.run_dir / "logs" / f"{run_id}.log"
    try:
        with log_to(log_path):
            with _uncollected_imports():
                from components.errors import NotBlessedError
                from pipeline.runs.run import run_single_component
            outcome = run_single_component(loaded, name, run_id, _COMPONENT_WAIT_S)
    except ComponentFailedError as error:
        code = _REFUSED if isinstance(error.__cause__, NotBlessedError) else 1
        fail(f"{error}\nThe log is {log_path}", code)
    note(f"{name}: {outcome.state} in {outcome.seconds:.1f} s")


def run_pipeline_command(
    config: "PipelineConfig",
    command: Literal["run", "index"],
    *,
    overrides: Sequence[str] = (),
    name: str = "",
    is_experiment: bool = False,
    fresh: bool = False,
    skipped_status: int | None = None,
    wait_s: float = 0.0,
    as_json: bool,
) -> None:
    """Run the pipeline or an index refresh under the run lock; record and print the outcome.

    `overrides` and the name are recorded; `config` already contains the overrides. An experiment
    does not push.
    If nothing has changed since the last complete run, the command exits with `skipped_status`,
    unless this is None.

    Raises:
        typer.Exit: The run was skipped, failed or was refused by a gate.
    """
    from components.interactions.errors import IngestError
    from pipeline.runs.history import new_run_id
    from pipeline.runs.lock import run_lock

    about = {
        "overrides": list(overrides),
        "name": name,
        "is_experiment": is_experiment,
        "configuration": config.model_dump(mode="json", by_alias=True, exclude={"root"}),
    }
    with run_lock(config.run_dir, wait_s):
        try:
            inputs = _inputs(config, command)
            unchanged = None if skipped_status is None else _unchanged(config, inputs)
        except (IngestError, OSError) as error:
            record = _history(config).begin(new_run_id(), command, None, **about)
            _end_early(config, record, error)
            raise
        if unchanged is not None:
            _show_nothing_new(config, *unchanged, as_json=as_json)
            raise typer.Exit(skipped_status or 0)
        record = _history(config).begin(new_run_id(), command, inputs, **about)
        _run_recorded(config, record, fresh, as_json)


def _log_path(config: "PipelineConfig", record: "RunRecord") -> Path:
    return config.run_dir / "logs" / f"{record.run_id}.log"


def _history(config: "PipelineConfig") -> "RunHistory":
    """Open the run history with a new connection, because TFX has its own ones in between."""
    from pipeline.runs.history import RunHistory
    from pipeline.runs.metadata import open_store

    return RunHistory(open_store(config), config.name)


def _inputs(config: "PipelineConfig", command: str) -> "InputState | None":
    """Return the state of the input files, settings and code, or None without a catalogue file."""
    from pipeline.runs.history import refreshed_through
    from pipeline.runs.state import input_state, refresh_state

    if command == "run":
        return input_state(config, refreshed_through(config))
    # Without a catalogue, the refresh itself raises an error.
    return None if config.candidates.file is None else refresh_state(config)


def _unchanged(
    config: "PipelineConfig", inputs: "InputState | None"
) -> "tuple[InputState, RunRecord, int] | None":
    """Return the inputs, the last complete run and the served version; None if anything changed."""
    from pipeline.runs.history import newest_catalogue
    from pipeline.runs.metadata import has_metadata
    from pipeline.runs.state import input_state

    if inputs is None or not has_metadata(config):
        return None
    last, refreshes = _history(config).since_last_complete()
    if last is None:
        return None
    if refreshes:
        # A refresh already serves the newer catalogue, so the new files need no training.
        inputs = input_state(config, newest_catalogue(config, [last]))
    version = max(pushed_versions(config.serving_dir), default=0)
    if (last.files, last.settings) != (inputs.files, inputs.settings) or version not in {
        record.summary.get("pushed_version") for record in (last, *refreshes)
    }:
        return None
    return inputs, last, version


def _show_nothing_new(
    config: "PipelineConfig",
    inputs: "InputState",
    last: "RunRecord",
    version: int,
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json({"config": last.config, "skipped": True, "same_as": last.to_json()})
    elif not Verbosity.quiet:
        through = f", through span {inputs.span}" if inputs.span else ""
        files = "input file" if inputs.num_files == 1 else "input files"
        say(
            f"nothing new: {inputs.num_files:,} {files}{through}, settings and code are those of "
            f"run {last.run_id}, which was pushed as version {version}. Use --force to run anyway"
        )
        if stable := other_stable_version(config, version):
            say(stable)


def _run_recorded(
    config: "PipelineConfig", record: "RunRecord", fresh: bool, as_json: bool
) -> None:
    from pipeline.cli.display import show_summary

    log_path = _log_path(config, record)
    try:
        summary = _run_in_log(config, record, fresh, log_path)
    except BaseException as error:
        _end_early(config, record, error)
        raise
    failure = summary.failure
    state: RunState = (
        "complete" if failure is None else "refused" if summary.is_refused else "failed"
    )
    record = _history(config).end(record, state, str(failure or ""), summary.to_json())
    summary.report = _report(config, record)
    if as_json:
        print_json(summary.to_json())
    elif not Verbosity.quiet or failure is not None:
        show_summary(summary, config, log_path)
    if failure is None:
        return
    if not summary.is_refused:
        fail(f"{failure}\nThe log is {log_path}")
    # A gate reports one line per check, and these lines are wider than a terminal.
    lines = [
        textwrap.fill(line, 73, subsequent_indent="    ", break_on_hyphens=False)
        for line in failure.reason.splitlines()
    ]
    fail("\n".join([*lines, "Nothing was pushed."]), code=_REFUSED)


def _end_early(config: "PipelineConfig", record: "RunRecord", error: BaseException) -> None:
    """Record that a run failed without a summary; unless it was interrupted, write its report."""
    problem = (isinstance(error, Exception) and str(error)) or type(error).__name__
    record = _history(config).end(record, "failed", problem, {})
    if isinstance(error, Exception) and (report := _report(config, record)):
        note(f"The report is {Path(report).as_uri()}")


def _report(config: "PipelineConfig", record: "RunRecord") -> str | None:
    """Write the report of a run and return its path, or None with a warning if this fails."""
    try:
        with log_to(_log_path(config, record)):
            from pipeline.report.page import write_report

            return str(write_report(config, record))
    except Exception as error:  # whatever it is, the run has ended and keeps its result
        note(f"warning: the report cannot be written: {type(error).__name__}: {error}")
        return None


def _run_in_log(
    config: "PipelineConfig", record: "RunRecord", fresh: bool, log_path: Path
) -> "RunSummary":
    from pipeline.cli.display import RunDisplay

    with log_to(log_path) as terminal, RunDisplay(terminal, quiet=Verbosity.quiet) as display:
        with _uncollected_imports():
            from pipeline.runs.run import refresh_index
            from pipeline.runs.run import run as run_pipeline
        try:
            if record.command == "index":
                return refresh_index(config, record.run_id, display)
            return run_pipeline(
                config, record.run_id, display, fresh=fresh, push=not record.is_experiment
            )
        except OSError as error:
            log.exception("the run ended")
            raise OSError(f"{type(error).__name__}: {error}\nThe log is {log_path}") from error


@contextlib.contextmanager
def _uncollected_imports() -> Iterator[None]:
    """Exclude the imports in a block from garbage collection.

    They create a million objects that live as long as the process. Scanning them for garbage takes
    time and frees nothing.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()
