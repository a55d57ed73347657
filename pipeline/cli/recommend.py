"""`two-tower recommend` and `two-tower similar`: request candidates from the served model."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Model, Project, parse_filters, split_ids
from pipeline.cli.output import fail, new_table, note, print_json, print_table, say
from pipeline.cli.serve import possible_k, served_model

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.releases.answering_model import AnsweringModel
    from serving.clients.answer import Recommendations


@command
def recommend(
    project: Project,
    query_id: str = "",
    k: int = 10,
    history: list[str] | None = None,
    exclude: list[str] | None = None,
    allow: list[str] | None = None,
    include_seen: bool = False,
    known_history: bool = False,
    model: Model = Model(),
    target: str | None = None,
    as_json: bool = False,
) -> None:
    """Recommend candidates for a query with the served model.

    The request is that of a client in production: it contains the query's features and history, and
    it excludes the candidates of the history.

    Example: two-tower recommend -c movielens_100k --query-id 42 -k 5

    Args:
        query_id (ID): ID of the user or session.
        history (ID,ID): Candidates of the events so far, oldest first. By default, they are read
            from the files of the events. Put an ID that contains a comma in double quotes. Repeat
            the option for a long history.
        exclude (ID,ID): Candidates to leave out, in the format of --history.
        include_seen: Do not exclude the candidates of the history.
        known_history: Send no history, so that the model uses the one that it keeps with
            `serving.known_histories`.
    """
    if known_history and (history or not query_id):
        raise typer.BadParameter("--known-history needs --query-id, and excludes --history")
    if not query_id and not history:
        raise typer.BadParameter("give a query with --query-id, or its events with --history")
    filters = parse_filters(allow)
    loaded = project.load()
    from pipeline.source_lookup import known_query

    given = split_ids(history) if history else [] if known_history else None
    asked = known_query(loaded, query_id, given, split_ids(exclude), include_seen=include_seen)
    query_id = asked.query_id
    if query_id and not asked.history and not history and not known_history:
        note(f"{query_id!r} has no events in the files, so the answer is not personal")
    if known_history and not loaded.serving.known_histories:
        note("`serving.known_histories` is 0, so the answer may not be personal")
    if query_id and "queries" in loaded.data.queried:
        note("`queries.file` is a BigQuery query, so the request has no features of the query")
    with served_model(loaded, project.config, model, target) as (client, answering):
        answer = client.recommend(
            query_id,
            history=asked.history,
            features=asked.features,
            exclude=asked.exclude,
            filters=filters,
            exclude_seen=known_history and not include_seen,
            k=possible_k(client, loaded, k),
        )
    if not answer.candidate_ids:
        note("no candidate passes the filters and exclusions")
    number = len(asked.history)
    events = "the history that the model keeps" if known_history else f"{number} events"
    title = f"for {loaded.events.query_id} {query_id or '(unknown)'} with {events}"
    query = {"query_id": query_id, "num_history": number, "num_excluded": len(asked.exclude)}
    _show_answer(loaded, answer, answering, query, title, as_json)


@command
def similar(
    project: Project,
    candidate_id: str,
    k: int = 10,
    allow: list[str] | None = None,
    model: Model = Model(),
    target: str | None = None,
    as_json: bool = False,
) -> None:
    """List the candidates that are most similar to a candidate.

    Example: two-tower similar -c movielens_100k --candidate-id 50 --allow genres=Sci-Fi

    Args:
        candidate_id (ID): ID of the candidate to compare with.
    """
    filters = parse_filters(allow)
    loaded = project.load()
    from pipeline.source_lookup import served_ids

    (candidate_id,) = served_ids(loaded, [candidate_id])
    with served_model(loaded, project.config, model, target) as (client, answering):
        answer = client.similar(candidate_id, filters=filters, k=possible_k(client, loaded, k))
    if not answer.candidate_ids:
        problem = f"the served model does not know the candidate {candidate_id!r}"
        fail(f"no candidate passes the filters, or {problem}" if filters else problem)
    title = f"similar to {loaded.events.candidate_id} {candidate_id}"
    _show_answer(loaded, answer, answering, {"candidate_id": candidate_id}, title, as_json)


def _show_answer(
    config: "PipelineConfig",
    answer: "Recommendations",
    model: "AnsweringModel",
    query: dict[str, Any],
    title: str,
    as_json: bool,
) -> None:
    """Print the candidates of a response with their scores and fields.

    Features that the model does not return are read from the catalogue.
    """
    if model.run is None:
        model = replace(model, version=answer.model_version)
    scores = dict(zip(answer.candidate_ids, answer.scores, strict=True))
    names = list(config.spec.catalogue_features)
    returned = [name for name in names if name in answer.fields]
    known: dict[str, dict[str, Any]] = {}
    if len(returned) < len(names):
        from pipeline.source_lookup import describe_candidates

        known = {**describe_candidates(config, list(scores))}
    for number, candidate_id in enumerate(scores):
        fields = {name: answer.fields[name][number] for name in returned}
        known[candidate_id] = {**known.get(candidate_id, {}), **_present(fields)}
    if as_json:
        candidates = [
            {"candidate_id": candidate_id, "score": score, **known.get(candidate_id, {})}
            for candidate_id, score in scores.items()
        ]
        version = {"model_version": model.version, "model": str(model)}
        print_json({**query, **version, "candidates": candidates})
        return
    from rich.markup import escape

    table = new_table("#", config.events.candidate_id, *names, "score")
    for position, (candidate_id, score) in enumerate(scores.items(), start=1):
        features = known.get(candidate_id, {})
        cells = [escape(_text(features.get(name, ""))) for name in names]
        table.add_row(str(position), escape(candidate_id), *cells, f"{score:.3f}")
    print_table(table, title=title, ids=1)
    say(str(model), style="dim")


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are neither "" nor NaN, which is not equal to itself."""
    return {name: value for name, value in fields.items() if value != "" and value == value}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
