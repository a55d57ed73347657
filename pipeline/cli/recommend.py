"""`two-tower recommend` and `two-tower similar`: request candidates from the served model."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.command import command, usage_error
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
from pipeline.cli.output import fail, new_table, note, print_json, print_table, stdout
from pipeline.cli.served_model import possible_k, served_model

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients.answer import Recommendations

KOption = Annotated[int, typer.Option("-k", min=1, help="Number of candidates.")]


@command
def recommend(
    config: ConfigOption,
    query_id: Annotated[str, typer.Option(metavar="ID", help="The user or session.")] = "",
    k: KOption = 10,
    history: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID,ID",
            help="Events so far, oldest first; read from the events' files if absent. May be "
            "repeated. Put an ID that contains a comma in double quotes.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,ID", help="Candidates to leave out, written as --history is."),
    ] = None,
    allow: AllowOption = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Allow candidates of the history.")
    ] = False,
    target: TargetOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend candidates for a query with the served model.

    The request has what a client in production would send: the query's features, its events as
    history, and the same events as candidates to exclude.

    Example: two-tower recommend -c movielens_100k --query-id 42 -k 5
    """
    if not query_id and not history:
        raise usage_error("give a query with --query-id, or its events with --history")
    filters = parse_filters(allow)
    loaded = load_config(config, set_)
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.source_lookup import query_features, query_history

    events = split_ids(history) if history else query_history(loaded, query_id)
    features = query_features(loaded, query_id)
    excluded = split_ids(exclude) + ([] if include_seen else events)
    if query_id and not events and not history:
        note(f"{query_id!r} has no events in the files, so the answer is not personal")
    with served_model(loaded, config, target) as client:
        answer = client.recommend(
            query_id,
            history=events,
            features=features,
            exclude=excluded,
            filters=filters,
            k=possible_k(client, loaded, k),
        )
    title = f"for {loaded.events.query_id} {query_id or '(unknown)'} with {len(events)} events"
    query = {"query_id": query_id, "num_history": len(events), "num_excluded": len(excluded)}
    _show_answer(loaded, answer, query, title, as_json)


@command
def similar(
    config: ConfigOption,
    candidate_id: Annotated[str, typer.Option(metavar="ID", help="The candidate to start from.")],
    k: KOption = 10,
    allow: AllowOption = None,
    target: TargetOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the candidates that are most similar to a candidate.

    Example: two-tower similar -c movielens_100k --candidate-id 50 --allow genres=Sci-Fi
    """
    filters = parse_filters(allow)
    loaded = load_config(config, set_)
    with served_model(loaded, config, target) as client:
        answer = client.similar(candidate_id, filters=filters, k=possible_k(client, loaded, k))
    if not answer.candidate_ids:
        fail(
            f"no candidate passes the filters, or the served model does not know {candidate_id!r}"
            if filters
            else f"the served model does not know the candidate {candidate_id!r}"
        )
    title = f"similar to {loaded.events.candidate_id} {candidate_id}"
    _show_answer(loaded, answer, {"candidate_id": candidate_id}, title, as_json)


def _show_answer(
    config: "PipelineConfig",
    answer: "Recommendations",
    query: dict[str, Any],
    title: str,
    as_json: bool,
) -> None:
    """Print the candidates of a response with their scores and catalogue features."""
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.source_lookup import describe_candidates

    # The model pads its output with empty IDs if there are fewer than k candidates.
    pairs = [
        (candidate_id, score)
        for candidate_id, score in zip(answer.candidate_ids, answer.scores, strict=True)
        if candidate_id
    ]
    known = describe_candidates(config, [candidate_id for candidate_id, _ in pairs])
    if as_json:
        candidates = [
            {"candidate_id": candidate_id, "score": score, **known.get(candidate_id, {})}
            for candidate_id, score in pairs
        ]
        print_json({**query, "model_version": answer.model_version, "candidates": candidates})
        return
    from rich.markup import escape

    names = list(config.candidates.features)
    table = new_table("#", config.events.candidate_id, *names, "score")
    for position, (candidate_id, score) in enumerate(pairs, start=1):
        features = known.get(candidate_id, {})
        cells = [escape(features.get(name, "")) for name in names]
        table.add_row(str(position), escape(candidate_id), *cells, f"{score:.3f}")
    print_table(table, title=title, ids=1)
    stdout().print(f"model version {answer.model_version}", style="dim")
