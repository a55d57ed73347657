"""Decorator that makes a function a command of the command line."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo, ParameterInfo

from pipeline.cli.options import Project, SharedOptions
from pipeline.cli.output import Verbosity, fail

_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}


@dataclass(frozen=True)
class _OptionsOfAll:
    """Options of every command.

    Args:
        verbose: Show log lines and tracebacks.
        quiet: Hide progress, and the summary of a successful command.
    """

    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function, which reports expected errors without a traceback.

    Each parameter is an option, except for those with a `typer.Argument`. Its help is in the `Args`
    section of the docstring, as `name (METAVAR): help`, or in `SharedOptions`. A parameter whose
    type is a dataclass adds an option for each of its fields.
    """
    types: dict[str, Any] = get_type_hints(function)
    groups = {name: kind for name, kind in types.items() if bool(is_dataclass(kind))}

    @functools.wraps(function)
    def wrapped(**values: Any) -> None:
        Verbosity.verbose, Verbosity.quiet = values.pop("verbose"), values.pop("quiet")
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        try:
            function(**values)
        except _expected_errors() as error:
            if Verbosity.verbose:
                raise
            fail(_message(error))

    text = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:\n")[0]
    # Typer keeps line breaks, but the terminal can be narrower than the source.
    wrapped.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    parameters = [*_options(function), *_options(_OptionsOfAll)]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    wrapped.__dict__["__signature__"] = inspect.Signature(parameters)
    return wrapped


def _options(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function or dataclass with complete Typer options as types."""
    types, hints = get_type_hints(function), get_type_hints(function, include_extras=True)
    section = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:\n")[2]
    pattern = r"^    (\w+)(?: \((.+?)\))?: (.+(?:\n {8}.+)*)"
    texts = {name: texts for name, *texts in re.findall(pattern, section, re.MULTILINE)}
    for name, parameter in inspect.signature(function).parameters.items():
        kind: Any = types[name]
        if bool(is_dataclass(kind)):
            yield from _options(kind)
            continue
        if name in texts:
            metavar, text = texts[name]
            inner, option = _inner_type(hints[name])
            option.help = " ".join(text.split())
            option.metavar = metavar or _METAVARS.get(inner)
            if isinstance(option, OptionInfo) and option.default is ...:
                # Without a name, Typer would add an option `--no-NAME` to a flag.
                option.default = f"--{name.rstrip('_').replace('_', '-')}"
            kind = Annotated[kind, option]
        elif kind is not typer.Context:
            kind = Annotated[kind, _SHARED[name]]
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)


def _inner_type(hint: Any) -> tuple[Any, ParameterInfo]:
    """Return the type inside Optional, list and Annotated, and a copy of its Typer option."""
    option: ParameterInfo = typer.Option()
    while inner := [part for part in get_args(hint) if part is not NoneType]:
        option = next((part for part in inner if isinstance(part, ParameterInfo)), option)
        if isinstance(inner[0], str):  # the choices of a Literal
            break
        hint = inner[0]
    return hint, copy(option)


_SHARED = {
    shared.name: shared.annotation.__metadata__[0]
    for options in (Project, SharedOptions)
    for shared in _options(options)
}


def _expected_errors() -> tuple[type[Exception], ...]:
    """Return the errors to report without a traceback.

    This is called only after a command has raised, so the imports do not slow down other commands.
    """
    from components.errors import BatchError
    from components.interactions.errors import IngestError
    from pipeline.errors import PipelineError
    from serving.errors import LaunchError, ServingError

    # Importing ML Metadata is slow. If it is not imported, it cannot have raised an error.
    store = sys.modules.get("ml_metadata.errors")
    of_store = () if store is None else (store.StatusError,)
    return (PipelineError, IngestError, BatchError, ServingError, LaunchError, OSError, *of_store)


def _message(error: Exception) -> str:
    if type(error).__module__.startswith("ml_metadata"):
        return f"ML Metadata cannot be used: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written: {error.strerror}"
    return str(error)
