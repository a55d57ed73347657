"""`two-tower schema`: infer a first schema, and compare the curated schema with the data."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import new_table, note, print_table, say
from pipeline.schema_inference import DEFAULT_MAX_ROWS

if TYPE_CHECKING:
    from pipeline.schema_inference.observation import Observation

app = typer.Typer(
    help="Infer a schema from the data, or compare the data with the schema.", no_args_is_help=True
)


@app.command()
@command
def infer(
    project: Project,
    output: Path | None = None,
    force: bool = False,
    max_rows: int = DEFAULT_MAX_ROWS,
) -> None:
    """Write a schema that fits the data, as a starting point to edit.

    Example: two-tower schema infer -c clicks

    Args:
        output (FILE): File to write. By default, it is `schema.file`.
        force: Replace the file if it exists.
    """
    from pipeline.schema_inference.config_schema import write_inferred_schema

    loaded = project.load()
    file = output or Path(loaded.schema_file)
    observed = write_inferred_schema(loaded, file, force=force, max_rows=max_rows)
    _print_rows(observed)
    say(
        f"wrote {file}: {len(observed.features)} features. Read it and tighten it; "
        f"`two-tower schema diff --config {project.config}` compares it with new data"
    )


@app.command()
@command
def diff(project: Project, max_rows: int = DEFAULT_MAX_ROWS) -> None:
    """Show where the data differs from the curated schema. Exit with 1 if it does.

    Example: two-tower schema diff -c clicks
    """
    from pipeline.schema_inference.config_schema import compare_with_curated_schema

    comparison = compare_with_curated_schema(project.load(), max_rows)
    _print_rows(comparison.observed)
    if not comparison.differences:
        say(f"the data fits {comparison.file}")
        return
    from rich.markup import escape

    table = new_table("feature", "schema", "data", "edit of the schema")
    for found in comparison.differences:
        cells = (found.feature or "(schema)", found.schema_says, found.data_says, found.edit)
        table.add_row(*map(escape, cells))
    print_table(table)
    count = len(comparison.differences)
    say(
        f"{count} difference{'s' if count > 1 else ''} from {comparison.file}: fix the data, or "
        "edit the schema"
    )
    raise typer.Exit(1)


def _print_rows(observed: "Observation") -> None:
    from pipeline.schema_inference.inferred_schema import describe_read

    note(f"read {describe_read(observed)}")
    note_warnings(observed)


def note_warnings(observed: "Observation") -> None:
    """Show the warnings about the data."""
    for text in observed.warnings:
        note(f"warning: {text}")
