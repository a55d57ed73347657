"""Recommendations on the terminal."""

import json
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import fail, stdout

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients.answer import Recommendations


def show_answer(
    config: "PipelineConfig",
    answer: "Recommendations",
    question: dict[str, Any],
    heading: str,
    as_json: bool,
) -> None:
    """Prints candidates with what the catalogue says of them.

    Args:
        config: The use.
        answer: Candidates, best first; "" where none was left.
        question: What was asked, for the JSON object.
        heading: What was asked, for a person.
        as_json: One JSON object instead of a table.
    """
    from components.interactions.errors import IngestError
    from pipeline.beam_messages import silence_beam_import

    silence_beam_import()
    from pipeline.source_lookup import describe_candidates

    pairs = [
        (candidate_id, score)
        for candidate_id, score in zip(answer.candidate_ids, answer.scores, strict=True)
        if candidate_id
    ]
    try:
        known = describe_candidates(config, [candidate_id for candidate_id, _ in pairs])
    except IngestError as error:
        fail(str(error))
    if as_json:
        candidates = [
            {"candidate_id": candidate_id, "score": score, **known.get(candidate_id, {})}
            for candidate_id, score in pairs
        ]
        print(
            json.dumps(
                {**question, "model_version": answer.model_version, "candidates": candidates}
            )
        )
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=heading, title_justify="left", title_style="bold")
    table.add_column("#", justify="right")
    table.add_column(config.columns.candidate_id)
    names = list(config.features.candidate)
    for name in names:
        table.add_column(name)
    table.add_column("score", justify="right")
    for place, (candidate_id, score) in enumerate(pairs, start=1):
        features = known.get(candidate_id, {})
        cells = [escape(features.get(name, "")) for name in names]
        table.add_row(str(place), escape(candidate_id), *cells, f"{score:.3f}")
    stdout().print(table)
    stdout().print(f"model version {answer.model_version}", style="dim")
