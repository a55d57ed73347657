"""Terminal output of commands, and redirection of logs to a file."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Wide enough that lines are neither cut nor wrapped if the output is not a terminal.
_PIPE_WIDTH = 10_000
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Verbosity:
    """Process-wide values of `--verbose` and `--quiet`."""

    verbose = False
    quiet = False


def _console(*, stderr: bool = False, stream: TextIO | None = None) -> "Console":
    """Return a console for results or, with `stderr`, for errors, warnings and progress.

    `stream` is that of `log_to`.
    """
    from rich.console import Console  # slow to import

    found = stream or (sys.stderr if stderr else sys.stdout)
    width = None if found.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, file=stream, highlight=False, width=width)


def say(text: str, *, style: str | None = None) -> None:
    """Print `text` on standard output, without interpreting markup and without wrapping."""
    _console().print(text, style=style, markup=False, soft_wrap=True)


def note(text: str, *, style: str | None = None) -> None:
    """Print a warning, hint or status line on standard error, unless `--quiet` is given."""
    if not Verbosity.quiet:
        _console(stderr=True).print(text, style=style, markup=False, soft_wrap=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error without a traceback and end the command with the exit status `code`."""
    console = _console(stderr=True)
    console.print("error:", style="bold red", end=" ")
    # `markup=False`, because a message may contain square brackets.
    console.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def waiting(text: str, stream: TextIO | None = None) -> AbstractContextManager[Any]:
    """Return a context that shows a spinner, unless `--quiet` is given.

    Within `log_to`, `stream` is the stream that it yields.
    """
    return nullcontext() if Verbosity.quiet else _console(stderr=True, stream=stream).status(text)


def print_json(content: Any) -> None:
    """Print JSON; NaN and infinite numbers become null."""
    from pydantic_core import to_json

    print(to_json(content, inf_nan_mode="null").decode())


def new_table(*headings: str, show_header: bool = True) -> "Table":
    """Return a table without borders, whose columns wrap in a narrow terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=show_header)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_table(table: "Table", *, title: str = "", ids: int | None = None) -> None:
    """Print a table of markup; the column with the index `ids` is never wrapped or cut."""
    if title:
        say(title, style="bold")
    if ids is not None:
        column = table.columns[ids]
        column.min_width = max((len(str(cell)) for cell in column.cells), default=0)
    _console().print(table, crop=False)


@contextmanager
def log_to(log_path: Path) -> Iterator[TextIO]:
    """Append standard output and standard error, including those of C++ code, to a log file.

    Yield a stream to the original standard error. With `--verbose`, Python log lines also appear
    there.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log_path.open("ab", buffering=0) as log, os.fdopen(os.dup(2), "w") as terminal:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        handlers: list[logging.Handler] = [logging.FileHandler(log_path, encoding="utf-8")]
        if Verbosity.verbose:
            handlers.append(logging.StreamHandler(terminal))
        for handler in handlers:
            handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        root = logging.getLogger()
        # A library may have configured logging before, as Beam does when it reads options.
        before, level = root.handlers[:], root.level
        root.handlers[:] = handlers
        root.setLevel(logging.INFO)
        # Beam logs each unsupported type hint, which adds thousands of lines per run.
        logging.getLogger("apache_beam.typehints").setLevel(logging.WARNING)
        logging.captureWarnings(True)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            root.handlers[:] = before
            root.setLevel(level)
            handlers[0].close()
            for descriptor, target in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
