"""`two-tower similar`: ask the served model for a candidate's nearest candidates."""

from typing import Annotated

import typer

from pipeline.cli.answers import show_answer
from pipeline.cli.console import fail
from pipeline.cli.options import (
    AllowOption,
    ConfigOption,
    JsonOption,
    SetOption,
    TargetOption,
    load_config,
    parse_filters,
)
from pipeline.cli.served_model import answerable_k, served_model


def similar(
    config: ConfigOption,
    candidate_id: Annotated[str, typer.Option(help="The candidate to start from.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many candidates.")] = 10,
    allow: AllowOption = None,
    target: TargetOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the served model for a candidate's nearest candidates, over gRPC."""
    loaded = load_config(config, set_)
    filters = parse_filters(allow)
    with served_model(loaded, config, target) as client:
        answer = client.similar(candidate_id, filters=filters, k=answerable_k(client, loaded, k))
    if not answer.candidate_ids:
        fail(
            f"no candidate passes the filters, or the served model does not know {candidate_id!r}"
            if filters
            else f"the served model does not know the candidate {candidate_id!r}"
        )
    heading = f"similar to {loaded.columns.candidate_id} {candidate_id}"
    show_answer(loaded, answer, {"candidate_id": candidate_id}, heading, as_json)
