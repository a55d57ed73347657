"""The `two-tower` command.

Modules of commands import nothing slow at their top, so that `--help` is there at once.
"""

import typer

from pipeline.cli.clean import clean
from pipeline.cli.compile import compile_
from pipeline.cli.component import component
from pipeline.cli.config import config
from pipeline.cli.data import data
from pipeline.cli.doctor import doctor
from pipeline.cli.evaluate import evaluate
from pipeline.cli.index import index
from pipeline.cli.init import init
from pipeline.cli.loadtest import loadtest
from pipeline.cli.promote import promote
from pipeline.cli.recommend import recommend
from pipeline.cli.rollback import rollback
from pipeline.cli.run import run
from pipeline.cli.runs import app as runs
from pipeline.cli.schema import app as schema
from pipeline.cli.serve import serve
from pipeline.cli.similar import similar
from pipeline.cli.skew import skew
from pipeline.cli.submit import submit

app = typer.Typer(
    name="two-tower",
    help="From interaction logs to a served two-tower retrieval model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    run,
    evaluate,
    index,
    clean,
    serve,
    recommend,
    similar,
    loadtest,
    skew,
    promote,
    rollback,
    data,
    init,
    config,
    doctor,
    submit,
    component,
):
    app.command()(command)
app.add_typer(runs, name="runs")
app.command(name="compile")(compile_)
app.add_typer(schema, name="schema")


def main() -> None:
    """Runs the command."""
    app()
