"""Decorator for commands, which adds `--verbose`, `--quiet`, metavars and error handling."""

import functools
import inspect
import sys
from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from pipeline.cli.output import Verbosity, fail

_METAVARS: dict[Any, str] = {bool: "", int: "N", float: "X", str: "TEXT"}
_SHARED: dict[str, Any] = {
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Show log lines and tracebacks.", metavar="")
    ],
    "quiet": Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Show no progress, and no summary of a success.", metavar=""
        ),
    ],
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command, and report expected errors without a traceback."""

    @functools.wraps(function)
    def wrapped(*args: Any, verbose: bool = False, quiet: bool = False, **kwargs: Any) -> None:
        Verbosity.verbose, Verbosity.quiet = verbose, quiet
        try:
            function(*args, **kwargs)
        except _expected_errors() as error:
            if verbose:
                raise
            fail(_message(error))

    hints = get_type_hints(function, include_extras=True)
    for hint in hints.values():
        _set_metavar(hint)
    signature = inspect.signature(function)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hint)
        for name, hint in _SHARED.items()
    ]
    wrapped.__annotations__ = {**hints, **_SHARED}
    wrapped.__dict__["__signature__"] = signature.replace(
        parameters=[*signature.parameters.values(), *shared]
    )
    return wrapped


def usage_error(message: str) -> typer.BadParameter:
    """Return an error for wrong usage; raising it ends the command with status 2."""
    return typer.BadParameter(message)


def _set_metavar(hint: Any) -> None:
    """Set the metavar of an option from its type, unless it has one; flags get none."""
    option = None
    # Unwrap Optional and Annotated, in either order.
    while inner := [part for part in get_args(hint) if part is not NoneType]:
        option = next((part for part in inner if isinstance(part, OptionInfo)), option)
        hint = inner[0]
    if option is not None and option.metavar is None:
        option.metavar = _METAVARS.get(hint)


def _expected_errors() -> tuple[type[Exception], ...]:
    """Return the errors to report without a traceback.

    This is called only after a command has raised, so the imports do not slow down other commands.
    """
    from components.interactions.errors import IngestError
    from pipeline.errors import PipelineError
    from serving.errors import LaunchError, ServingError

    # Importing ML Metadata is slow. If it is not imported, it cannot have raised an error.
    store = sys.modules.get("ml_metadata.errors")
    of_store = () if store is None else (store.StatusError,)
    return (PipelineError, IngestError, ServingError, LaunchError, OSError, *of_store)


def _message(error: Exception) -> str:
    if type(error).__module__.startswith("ml_metadata"):
        return f"ML Metadata cannot be used: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written: {error.strerror}"
    return str(error)
