"""Printing of results, tables and errors, and logging to a file."""

import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Nothing is cut or folded in a pipe.
_PIPE_WIDTH = 10_000


class Verbosity:
    """The level that `--verbose` and `--quiet` choose for this process."""

    verbose = False
    quiet = False


def _console(stream: TextIO, *, stderr: bool) -> "Console":
    from rich.console import Console  # slow to import

    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, width=width)


def stdout() -> "Console":
    """Return the console for results."""
    return _console(sys.stdout, stderr=False)


def stderr() -> "Console":
    """Return the console for errors, warnings and progress."""
    return _console(sys.stderr, stderr=True)


def say(text: str, *, style: str | None = None) -> None:
    """Print a line of the result without markup and without folding."""
    stdout().print(text, style=style, markup=False, soft_wrap=True)


def note(text: str, *, style: str | None = None) -> None:
    """Print a warning or hint on standard error, unless `--quiet` is given."""
    if not Verbosity.quiet:
        stderr().print(text, style=style, markup=False, soft_wrap=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error without a traceback and end the command.

    Args:
        message: What must hold, what was found, where, and what to do.
        code: Exit status.
    """
    # Square brackets in a message are text, not markup.
    stderr().print("error:", style="bold red", end=" ")
    stderr().print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def waiting(text: str) -> AbstractContextManager[Any]:
    """Return a context that shows a spinner, unless `--quiet` is given."""
    return nullcontext() if Verbosity.quiet else stderr().status(text)


def print_json(content: Any) -> None:
    """Print one JSON object; NaN and infinite numbers become null."""
    print(json.dumps(_finite(content), allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def new_table(*headings: str, show_header: bool = True) -> "Table":
    """Return a table without lines, whose text columns fold in a narrow terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=show_header)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_table(table: "Table", *, title: str = "", ids: int | None = None) -> None:
    """Print a table.

    Args:
        table: Rows of text or markup.
        title: A line above the table.
        ids: Position of the column that holds IDs, which is never folded or cut.
    """
    if title:
        say(title, style="bold")
    if ids is not None:
        column = table.columns[ids]
        column.min_width = max((len(str(cell)) for cell in column.cells), default=0)
    stdout().print(table, crop=False)


@contextmanager
def log_to(log_path: Path) -> Iterator[TextIO]:
    """Send standard output and error, those of C++ code included, to a log file.

    With `--verbose`, Python's log lines are shown on the terminal too.

    Args:
        log_path: The file; its folder is created.

    Yields:
        The terminal's standard error.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log_path.open("ab", buffering=0) as log, os.fdopen(os.dup(2), "w") as terminal:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        handlers: list[logging.Handler] = [logging.StreamHandler()]
        if Verbosity.verbose:
            handlers.append(logging.StreamHandler(terminal))
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            handlers=handlers,
        )
        # Beam logs each type hint that it cannot express: thousands of lines per run.
        logging.getLogger("apache_beam.typehints").setLevel(logging.WARNING)
        logging.captureWarnings(True)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            if Verbosity.verbose:
                logging.getLogger().removeHandler(handlers[-1])
            for descriptor, target in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
