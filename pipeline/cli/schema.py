"""`two-tower schema`: infer a first schema, and compare the curated schema with the data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import ConfigOption, SetOption, load_config
from pipeline.cli.output import new_table, note, print_table, say
from pipeline.schema_inference import DEFAULT_MAX_ROWS

if TYPE_CHECKING:
    from pipeline.schema_inference.observation import Observation
    from pipeline.schema_inference.schema_differences import Difference

app = typer.Typer(help="Infer a schema from the data, or compare the two.", no_args_is_help=True)

_MaxRows = Annotated[
    int, typer.Option(metavar="N", min=1, help="Read about this many rows of each input at most.")
]


@app.command()
@command
def infer(
    config: ConfigOption,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; `schema.file` if absent."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    max_rows: _MaxRows = DEFAULT_MAX_ROWS,
    set_: SetOption = None,
) -> None:
    """Write a schema that fits the data, as a starting point to edit.

    Example: two-tower schema infer -c clicks
    """
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.schema_inference.config_schema import write_inferred_schema

    loaded = load_config(config, set_)
    file = output or Path(loaded.schema_file)
    observed = write_inferred_schema(loaded, file, force=force, max_rows=max_rows)
    _print_rows(observed)
    say(
        f"wrote {file}: {len(observed.features)} features. Read it and tighten it; "
        f"`two-tower schema diff --config {config}` compares it with new data"
    )


@app.command()
@command
def diff(
    config: ConfigOption, max_rows: _MaxRows = DEFAULT_MAX_ROWS, set_: SetOption = None
) -> None:
    """Show where the data differs from the curated schema; exit with 1 if it does.

    Example: two-tower schema diff -c clicks
    """
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.schema_inference.config_schema import compare_with_curated_schema

    comparison = compare_with_curated_schema(load_config(config, set_), max_rows)
    _print_rows(comparison.observed)
    if not comparison.differences:
        say(f"the data fits {comparison.file}")
        return
    _print_differences(comparison.differences)
    count = len(comparison.differences)
    say(
        f"{count} difference{'s' if count > 1 else ''} from {comparison.file}: fix the data, or "
        "edit the schema"
    )
    raise typer.Exit(1)


def _print_differences(differences: "list[Difference]") -> None:
    from rich.markup import escape

    table = new_table("feature", "schema", "data", "edit of the schema")
    for found in differences:
        cells = (found.feature or "(schema)", found.schema_says, found.data_says, found.edit)
        table.add_row(*map(escape, cells))
    print_table(table)


def _print_rows(observed: "Observation") -> None:
    from pipeline.schema_inference.inferred_schema import describe_read

    note(f"read {describe_read(observed)}")
    for what, count in observed.without_row.items():
        if count:
            note(f"{count:,} {what} have events but no row in `{what}.file`, so no features")
