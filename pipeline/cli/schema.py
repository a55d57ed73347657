"""`two-tower schema`: write a first schema, and find where data and schema part."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import fail, stderr, stdout
from pipeline.cli.options import ConfigOption, load_config

if TYPE_CHECKING:
    from pipeline.schema_inference.observation import Observation
    from pipeline.schema_inference.schema_differences import Difference

app = typer.Typer(
    help="Write a first schema of the data, and compare data and schema.", no_args_is_help=True
)

_MaxRows = Annotated[
    int, typer.Option(min=1, help="Read at most about so many rows of each source.")
]
# As in pipeline/schema_inference/observation.py, which is slow to import.
_DEFAULT_MAX_ROWS = 5_000_000


@app.command()
def infer(
    config: ConfigOption,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. [default: the configuration's schema]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    max_rows: _MaxRows = _DEFAULT_MAX_ROWS,
) -> None:
    """Write a schema that the data fits, as a start to edit."""
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.errors import SchemaError
    from pipeline.schema_inference.config_schema import write_inferred_schema

    loaded = load_config(config)
    try:
        file = output or Path(loaded.schema_file)
        observed = write_inferred_schema(loaded, file, force=force, max_rows=max_rows)
    except SchemaError as error:
        fail(str(error))
    _say_what_was_read(observed)
    stdout().print(
        f"wrote {file}: {len(observed.features)} features. Read it and tighten it; "
        f"`two-tower schema diff --config {config}` compares it with new data",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def diff(config: ConfigOption, max_rows: _MaxRows = _DEFAULT_MAX_ROWS) -> None:
    """Show where the data differs from the curated schema; status 1 if it does."""
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.errors import SchemaError
    from pipeline.schema_inference.config_schema import compare_with_curated_schema

    loaded = load_config(config)
    try:
        comparison = compare_with_curated_schema(loaded, max_rows)
    except SchemaError as error:
        fail(str(error))
    _say_what_was_read(comparison.observed)
    if not comparison.differences:
        stdout().print(f"the data fits {comparison.file}", markup=False, soft_wrap=True)
        return
    _print_differences(comparison.differences)
    count = len(comparison.differences)
    stdout().print(
        f"{count} difference{'s' if count > 1 else ''} from {comparison.file}: mend the data, or "
        "edit the schema",
        markup=False,
        soft_wrap=True,
    )
    raise typer.Exit(1)


def _print_differences(differences: "list[Difference]") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("feature", box=None, pad_edge=False)
    for title in ("the schema says", "the data says", "edit of the schema"):
        table.add_column(title, overflow="fold")
    for found in differences:
        cells = (found.feature or "(schema)", found.schema_says, found.data_says, found.edit)
        table.add_row(*map(escape, cells))
    stdout().print(table)


def _say_what_was_read(observed: "Observation") -> None:
    from pipeline.schema_inference.inferred_schema import describe_read

    stderr().print(f"read {describe_read(observed)}", markup=False, soft_wrap=True)
    for what, count in (
        ("queries", observed.queries_without_row),
        ("candidates", observed.candidates_without_row),
    ):
        if count:
            stderr().print(
                f"{count:,} {what} have events but no row in `{what}.file`: they have no features",
                markup=False,
                soft_wrap=True,
            )
