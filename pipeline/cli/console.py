"""What every command says, and how it fails."""

from functools import cache
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console


@cache
def stdout() -> "Console":
    """Return the console for results. It is made on the first use: rich is slow to import."""
    from rich.console import Console

    return Console(highlight=False)


@cache
def stderr() -> "Console":
    """Return the console for errors, warnings and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error without a traceback and end the command.

    Args:
        message: what must hold, what came, where, and what to do.
        code: the exit status.

    Raises:
        typer.Exit: always.
    """
    # A message may hold "[...]", which is text here and not rich's markup.
    stderr().print("error:", style="bold red", end=" ")
    stderr().print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)
