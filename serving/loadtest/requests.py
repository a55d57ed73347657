"""Conversion of queries to the serialized requests of a load test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from serving.clients.messages import GrpcProtocol
from serving.clients.model import ModelChoice, ModelMetadata
from serving.clients.query import Query, build_inputs, find_id_name
from serving.errors import InvalidArgumentError

# The query that a signature is called with, or None if the query does not suit it.
_FORMS: dict[str, Callable[[Query], Query | None]] = {
    "serving_default": lambda query: query,
    "recommend_excluding": lambda query: dataclasses.replace(query, exclude=query.history),
    "similar_candidates": lambda query: Query(query.history[-1]) if query.history else None,
    "embed_query": lambda query: query,
}

DRIVEN_SIGNATURES = tuple(_FORMS)
"""The signatures that a load test can call."""


def build_requests(
    metadata: ModelMetadata,
    model: ModelChoice,
    queries: Sequence[Query],
    signature_names: Sequence[str] = ("serving_default",),
    *,
    batch_size: int = 1,
    query_id_name: str | None = None,
    candidate_id_name: str | None = None,
) -> list[bytes]:
    """Return serialized PredictRequests that alternate between signatures of `DRIVEN_SIGNATURES`.

    Requests for `recommend_excluding` exclude the query's history. Requests for
    `similar_candidates` contain the candidate of the query's newest event.
    """
    protocol = GrpcProtocol(model)
    by_signature = []
    for name in signature_names:
        if name not in _FORMS or name not in metadata.signatures:
            raise InvalidArgumentError(
                f"signature must be one of {', '.join(DRIVEN_SIGNATURES)} that the model has, "
                f"got {name!r}"
            )
        signature = metadata.signatures[name]
        argument = "candidate_id_name" if name == "similar_candidates" else "query_id_name"
        given = candidate_id_name if name == "similar_candidates" else query_id_name
        id_name = find_id_name(signature, given, argument)
        asked = [form for query in queries if (form := _FORMS[name](query)) is not None]
        if not asked:
            raise InvalidArgumentError(f"{name!r} needs queries with a history, but none has one")
        batches = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
        inputs = [build_inputs(signature, id_name, batch) for batch in batches]
        by_signature.append(
            [protocol.predict(signature, one).request.SerializeToString() for one in inputs]
        )
    # Repeat the shorter lists, so that all signatures get the same number of requests.
    longest = max(len(requests) for requests in by_signature)
    return [
        requests[index % len(requests)] for index in range(longest) for requests in by_signature
    ]
