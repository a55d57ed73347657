"""`two-tower init`: draft a configuration and a schema from files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.output import new_table, note, print_table, say

if TYPE_CHECKING:
    from pipeline.init.written_config import WrittenConfig


@command
def init(
    events: Annotated[
        str,
        typer.Option(
            "--events", "--interactions", metavar="FILE", help="File or glob of the events."
        ),
    ],
    query_id: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the user or session.")],
    candidate_id: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the item.")],
    candidates: Annotated[
        str | None, typer.Option(metavar="FILE", help="File or glob of the catalogue.")
    ] = None,
    queries: Annotated[
        str | None, typer.Option(metavar="FILE", help="File or glob of the queries' features.")
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the time.")
    ] = None,
    rating: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the rating.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The .yaml file to write.",
            show_default="configs/NAME.yaml",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Draft a configuration and a schema from files, ready to run and to edit.

    Example: two-tower init --events clicks.csv --query-id user --candidate-id item
    --timestamp time --candidates items.csv
    """
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.init.draft import Request
    from pipeline.init.written_config import write_config

    request = Request(
        interactions=events,
        query_id=query_id,
        candidate_id=candidate_id,
        candidates=candidates,
        queries=queries,
        timestamp=timestamp,
        rating=rating,
    )
    written = write_config(request, output, force=force)
    _print_columns(written)
    _print_warnings(written)
    say(f"wrote {written.file}")
    say(f"wrote {written.config.schema_file}")
    say(f"next: two-tower run --config {_config_argument(written.file)}")


def _print_columns(written: "WrittenConfig") -> None:
    from rich.markup import escape

    columns, config = written.draft.columns, written.config
    table = new_table("column", "becomes", "because")
    table.add_row(escape(columns.query_id), "query ID", "--query-id")
    table.add_row(escape(columns.candidate_id), "candidate ID", "--candidate-id")
    if columns.timestamp is not None:
        unit = written.draft.unit
        table.add_row(escape(columns.timestamp), f"timestamp ({unit})", "--timestamp")
    if columns.rating is not None:
        table.add_row(escape(columns.rating), "rating", "--rating")
    for drafted in written.draft.drafted:
        becomes = "[dim]left out[/]"
        if drafted.feature is not None:
            becomes = f"{drafted.side} feature, {drafted.feature.kind}"
            if drafted.feature.separator:
                becomes += f" separated by {escape(repr(drafted.feature.separator))}"
            if drafted.feature.buckets:
                becomes += f" in {drafted.feature.buckets} buckets"
            if drafted.name != drafted.column:
                becomes += f", named {escape(str(drafted.name))}"
        table.add_row(escape(drafted.column), becomes, escape(drafted.reason))
    print_table(table)
    say(f"split {config.split.method}, objective {config.training.objective}\n")


def _print_warnings(written: "WrittenConfig") -> None:
    for hint in written.draft.hints:
        note(f"hint: {hint}")
    observed = written.observed
    for what, count in observed.without_row.items():
        if count:
            note(f"warning: {count:,} {what} have events but no row in --{what}, so no features")
    for (source, column, reason), count in observed.bad_rows.most_common(5):
        where = f"column {column!r} of {source}" if column else source
        first = observed.bad_values[source, column, reason]
        note(
            f"warning: {count:,} rows cannot be read: {where}: {reason}, first {first!r}. Fix "
            "them, or set `ingest.bad_rows: reject`"
        )


def _config_argument(file: Path) -> str:
    """Return the name by which `run` finds the file from here, or else its path."""
    by_name = file.parent == Path.cwd() / "configs" and file.suffix == ".yaml"
    return file.stem if by_name else str(file)
