"""`two-tower init`: draft a configuration and a schema from files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.output import new_table, note, print_table, say
from pipeline.cli.schema import note_warnings

if TYPE_CHECKING:
    from pipeline.init.written_config import WrittenConfig


@command
def init(
    events: Annotated[str, typer.Option("--events", "--interactions")],
    query_id: str,
    candidate_id: str,
    candidates: str | None = None,
    queries: str | None = None,
    timestamp: str | None = None,
    timestamp_unit: str | None = None,
    rating: str | None = None,
    event_type: str | None = None,
    preset: str | None = None,
    output: Annotated[Path | None, typer.Option(show_default="configs/NAME.yaml")] = None,
    force: bool = False,
) -> None:
    """Draft a configuration and a schema from files, ready to run and to edit.

    Example: two-tower init --events clicks.csv --query-id user --candidate-id item
    --timestamp time --candidates items.csv

    Args:
        events (FILE): File, folder or glob of the events.
        query_id (COLUMN): Column of the query ID: the user or the session.
        candidate_id (COLUMN): Column of the candidate ID: the item.
        candidates (FILE): File, folder or glob of the catalogue.
        queries (FILE): File, folder or glob of the queries' features.
        timestamp (COLUMN): Column of the time.
        timestamp_unit (UNIT): Value of `events.timestamp_unit`, if it cannot be detected.
        rating (COLUMN): Column of the rating, or of another value of an event such as dwell time.
        event_type (COLUMN): Column of the event type, such as view or purchase.
        preset (PRESET): Kind of the data, instead of what its statistics say: sessions, ratings,
            purchases or news.
        output (FILE): Configuration file to write, which ends in .yaml.
        force: Replace files that exist.
    """
    from models.features.spec import ColumnsConfig
    from pipeline.init.written_config import write_config

    files = {"events": events, "candidates": candidates, "queries": queries}
    columns = ColumnsConfig(
        query_id=query_id,
        candidate_id=candidate_id,
        timestamp=timestamp,
        rating=rating,
        event_type=event_type,
    )
    given = {role: pattern for role, pattern in files.items() if pattern is not None}
    written = write_config(
        given, columns, output, timestamp_unit=timestamp_unit, preset=preset, force=force
    )
    _print_columns(written)
    _print_warnings(written)
    say(f"wrote {written.file}")
    say(f"wrote {written.config.schema_file}")
    # `run` finds the file by its name if it is in configs/ of the working directory.
    by_name = written.file == Path.cwd() / "configs" / f"{written.config.name}.yaml"
    say(f"next: two-tower run --config {written.config.name if by_name else written.file}")


def _print_columns(written: "WrittenConfig") -> None:
    from rich.markup import escape

    columns, config = written.draft.columns, written.config
    table = new_table("column", "becomes", "because")
    times, rating_format = written.draft.times, written.draft.rating_format
    for name, becomes, detail in (
        ("query_id", "query ID", ""),
        ("candidate_id", "candidate ID", ""),
        (
            "timestamp",
            f"timestamp ({times.unit})" if times else "",
            f", read as {times.range}" if times else "",
        ),
        ("rating", f"rating ({rating_format})" if rating_format else "rating", ""),
        ("event_type", "event type", ""),
    ):
        if (column := getattr(columns, name)) is not None:
            option = f"--{name.replace('_', '-')}"
            table.add_row(escape(column), escape(becomes), f"{option}{detail}")
    for setting, column, reason in written.draft.availability:
        table.add_row(escape(column), f"candidates.{setting}", escape(reason))
    for drafted in written.draft.drafted:
        becomes = "[dim]left out[/]"
        if drafted.feature is not None:
            becomes = f"{drafted.side} feature, {drafted.feature.kind}"
            if drafted.feature.dimension:
                becomes += f" of {drafted.feature.dimension} numbers"
            if drafted.feature.path_separator:
                becomes += f" separated by {escape(repr(drafted.feature.path_separator))}"
            if drafted.feature.list_format:
                becomes += f" in {drafted.feature.list_format} lists"
            elif drafted.feature.separator:
                becomes += f" separated by {escape(repr(drafted.feature.separator))}"
            if drafted.feature.number_format:
                becomes += f" written as {escape(drafted.feature.number_format)}"
            if drafted.feature.buckets:
                becomes += f" in {drafted.feature.buckets} buckets"
            if drafted.name != drafted.column:
                becomes += f", named {escape(drafted.name)}"
        table.add_row(escape(drafted.column), becomes, escape(drafted.reason))
    print_table(table)
    say(f"split {config.split.method}, objective {config.training.objective}\n")


def _print_warnings(written: "WrittenConfig") -> None:
    from components.interactions.rows.bad_rows import hints

    config = written.config
    for hint in [*written.draft.hints, *config.events.columns_without_effect()]:
        note(f"hint: {hint}")
    note_warnings(written.observed)
    observed = written.observed
    for (source, column, reason), count in observed.bad_rows.most_common(5):
        where = f"column {column!r} of {source}" if column else source
        first = observed.bad_values[source, column, reason]
        note(
            f"warning: {count:,} rows cannot be read: {where}: {reason}, first {first!r}. Fix "
            f"them, or set `ingest.bad_rows: reject`.{hints([reason])}"
        )
