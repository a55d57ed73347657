"""`two-tower init`: write a configuration and a schema for files that nobody described yet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import fail, stderr, stdout

if TYPE_CHECKING:
    from pipeline.init.written_config import WrittenConfig


def init(
    interactions: Annotated[str, typer.Option(help="File or glob of the events.")],
    query_id: Annotated[str, typer.Option(help="Column: who asks, a user or a session.")],
    candidate_id: Annotated[str, typer.Option(help="Column: what is retrieved.")],
    candidates: Annotated[str | None, typer.Option(help="File of the catalogue.")] = None,
    queries: Annotated[str | None, typer.Option(help="File of the queries' features.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column: when.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column: how much.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="The .yaml file to write. [default: configs/NAME.yaml]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a configuration and a schema by what the files hold, ready to run and to edit."""
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.errors import ConfigError, InitError, SchemaError
    from pipeline.init.draft import Request
    from pipeline.init.written_config import write_config

    request = Request(
        interactions=interactions,
        query_id=query_id,
        candidate_id=candidate_id,
        candidates=candidates,
        queries=queries,
        timestamp=timestamp,
        rating=rating,
    )
    try:
        written = write_config(request, output, force=force)
    except (ConfigError, InitError, SchemaError) as error:
        fail(str(error))
    _print_features(written)
    _print_warnings(written)
    out = stdout()
    out.print(f"wrote {written.file}", markup=False, soft_wrap=True)
    out.print(f"wrote {written.config.schema_file}", markup=False, soft_wrap=True)
    out.print(
        f"next: two-tower run --config {_config_argument(written.file)}",
        markup=False,
        soft_wrap=True,
    )


def _print_features(written: "WrittenConfig") -> None:
    from rich.markup import escape
    from rich.table import Table

    draft = written.draft
    table = Table("column", "becomes", box=None, pad_edge=False)
    table.add_column("because", overflow="fold")
    columns = draft.columns
    table.add_row(escape(columns.query_id), "query id", "--query-id")
    table.add_row(escape(columns.candidate_id), "candidate id", "--candidate-id")
    if columns.timestamp is not None:
        table.add_row(escape(columns.timestamp), f"timestamp ({draft.unit})", "--timestamp")
    if columns.rating is not None:
        table.add_row(escape(columns.rating), "rating", "--rating")
    for drafted in draft.drafted:
        becomes = "[dim]left out[/]"
        if drafted.feature is not None:
            becomes = f"{drafted.side} feature, {drafted.feature.kind}"
            if drafted.feature.separator:
                becomes += f" separated by {escape(repr(drafted.feature.separator))}"
            if drafted.feature.buckets:
                becomes += f" in {drafted.feature.buckets} buckets"
            if drafted.name != drafted.column:
                becomes += f", called {escape(str(drafted.name))}"
        table.add_row(escape(drafted.column), becomes, escape(drafted.reason))
    stdout().print(table)
    config = written.config
    stdout().print(
        f"split {config.split.method}, objective {config.training.objective}\n", markup=False
    )


def _print_warnings(written: "WrittenConfig") -> None:
    for hint in written.draft.hints:
        stderr().print(f"hint: {hint}", markup=False, soft_wrap=True)
    for what, without in (
        ("queries", written.observed.queries_without_row),
        ("candidates", written.observed.candidates_without_row),
    ):
        if without:
            stderr().print(
                f"warning: {without:,} {what} have events but no row in --{what}; they are kept, "
                "without features",
                markup=False,
                soft_wrap=True,
            )
    for bad, count in written.observed.bad_values.most_common(5):
        where = f"column {bad.column!r} of {bad.source}" if bad.column else bad.source
        stderr().print(
            f"warning: {count:,} rows cannot be read: {where}: {bad.reason}, first "
            f"{bad.example!r}. Mend them, or set `ingest.bad_rows: reject`",
            markup=False,
            soft_wrap=True,
        )


def _config_argument(file: Path) -> str:
    """The name where `run` finds it by name from here, else the path."""
    by_name = file.parent == Path.cwd() / "configs" and file.suffix == ".yaml"
    return file.stem if by_name else str(file)
