"""`two-tower recommend`: ask the served model for a query's best candidates."""

from typing import Annotated

import typer

from pipeline.cli.answers import show_answer
from pipeline.cli.console import fail, stderr
from pipeline.cli.options import (
    AllowOption,
    ConfigOption,
    JsonOption,
    SetOption,
    TargetOption,
    load_config,
    parse_filters,
    split_ids,
)
from pipeline.cli.served_model import answerable_k, served_model


def recommend(
    config: ConfigOption,
    query_id: Annotated[str, typer.Option(help="The user or session that asks.")] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="How many candidates.")] = 10,
    history: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID,ID",
            help="Events so far, oldest first; from the interactions file if absent. May be given "
            "again; an id with a comma stands in double quotes.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID,ID", help="Candidates that must not come back, written as --history is."
        ),
    ] = None,
    allow: AllowOption = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Do not leave out what is in the history.")
    ] = False,
    target: TargetOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the served model for a query's best candidates, over gRPC.

    What the files know of the query goes along, as a client in production would send it: its
    features, its events as history, and the same events as what not to recommend again.
    """
    from components.interactions.errors import IngestError
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.source_lookup import query_features, query_history

    loaded = load_config(config, set_)
    filters = parse_filters(allow)
    if not query_id and not history:
        fail("name a query with --query-id, or give its events with --history")
    try:
        events = split_ids(history) if history else query_history(loaded, query_id)
        features = query_features(loaded, query_id)
    except IngestError as error:
        fail(str(error))
    excluded = split_ids(exclude) + ([] if include_seen else events)
    if query_id and not events and not history:
        stderr().print(f"the interactions know nothing of {query_id!r}: anyone's best candidates")
    with served_model(loaded, config, target) as client:
        answer = client.recommend(
            query_id,
            history=events,
            features=features,
            exclude=excluded,
            filters=filters,
            k=answerable_k(client, loaded, k),
        )
    heading = (
        f"for {loaded.columns.query_id} {query_id or '(unknown)'}, {len(events)} events before"
    )
    question = {"query_id": query_id, "num_history": len(events), "num_excluded": len(excluded)}
    show_answer(loaded, answer, question, heading, as_json)
