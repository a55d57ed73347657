"""The `two-tower` command with all its subcommands.

Command modules import slow packages inside functions, so that `--help` is fast.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from pipeline.cli.batch import batch
from pipeline.cli.clean import clean
from pipeline.cli.compile import compile_, submit
from pipeline.cli.config import config
from pipeline.cli.data import data
from pipeline.cli.doctor import doctor
from pipeline.cli.evaluate import evaluate
from pipeline.cli.explore import explore
from pipeline.cli.init import init
from pipeline.cli.loadtest import loadtest
from pipeline.cli.outcomes import outcomes
from pipeline.cli.recommend import recommend, similar
from pipeline.cli.release import promote, rollback
from pipeline.cli.report import report
from pipeline.cli.run import component, index, run
from pipeline.cli.runs import app as runs
from pipeline.cli.schema import app as schema
from pipeline.cli.serve import serve
from pipeline.cli.skew import skew

_COMMANDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "Set up": (init, data, config, doctor),
    "Build": (run, index, component, compile_, submit),
    "Inspect": (report, evaluate, skew, outcomes, clean),
    "Serve": (serve, explore, recommend, similar, batch, loadtest),
    "Release": (promote, rollback),
}

app = typer.Typer(
    name="two-tower",
    help="Train, evaluate and serve two-tower recommenders on your interaction logs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("two-tower-retrieval"))
        raise typer.Exit


_VERSION = typer.Option(
    "--version", callback=_print_version, is_eager=True, help="Print the version."
)


@app.callback()
def _options(_version: Annotated[bool, _VERSION] = False) -> None: ...


app.add_typer(schema, name="schema", rich_help_panel="Set up")
for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        app.command(_command.__name__.rstrip("_"), rich_help_panel=_panel)(_command)
app.add_typer(runs, name="runs", rich_help_panel="Inspect")


def _hide_flag_types(command: Any, parent: typer.Context | None = None) -> None:
    """Hide `<bool>` in the help of a command and its subcommands; Typer has no setting for it."""
    context = typer.Context(command, parent=parent, **command.context_settings)
    for parameter in command.get_params(context):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for subcommand in getattr(command, "commands", {}).values():
        _hide_flag_types(subcommand, context)


def main() -> None:
    """Run the `two-tower` command; this is its entry point."""
    root = typer.main.get_command(app)
    _hide_flag_types(root)
    root()
