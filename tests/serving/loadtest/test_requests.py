from __future__ import annotations

import pytest

from serving.clients import ModelMetadata, Query, SignatureSpec, TensorSpec, messages_pb2
from serving.clients.model import ModelChoice
from serving.errors import InvalidArgumentError
from serving.loadtest import build_requests

TEXT, TEXTS = TensorSpec("string", (None,)), TensorSpec("string", (None, None))
QUERY = {"user": TEXT, "history": TEXTS}
METADATA = ModelMetadata(
    1,
    {
        "serving_default": SignatureSpec("serving_default", QUERY, {}),
        "recommend_excluding": SignatureSpec(
            "recommend_excluding", {**QUERY, "exclude": TEXTS}, {}
        ),
        "similar_candidates": SignatureSpec("similar_candidates", {"item": TEXT}, {}),
    },
)
QUERIES = [Query("u1", ["a", "b"]), Query("u2"), Query("u3", ["c"])]
MODEL = ModelChoice("retrieval", label="stable")


def read(request: bytes) -> tuple[str, dict[str, list[str]]]:
    message = messages_pb2.PredictRequest.FromString(request)
    assert message.model_spec.version_label == "stable"
    inputs = {
        name: [value.decode() for value in tensor.string_val]
        for name, tensor in message.inputs.items()
    }
    return message.model_spec.signature_name, inputs


def test_a_request_for_each_query() -> None:
    requests = [read(request) for request in build_requests(METADATA, MODEL, QUERIES)]
    assert requests == [
        ("serving_default", {"user": ["u1"], "history": ["a", "b"]}),
        ("serving_default", {"user": ["u2"], "history": []}),
        ("serving_default", {"user": ["u3"], "history": ["c"]}),
    ]


def test_signatures_alternate_and_build_their_own_queries() -> None:
    names = ["recommend_excluding", "similar_candidates"]
    requests = [read(request) for request in build_requests(METADATA, MODEL, QUERIES, names)]
    assert [name for name, _ in requests] == names * 3
    assert requests[0][1]["exclude"] == ["a", "b"]
    # The query without a history has no event to start from.
    assert [inputs["item"] for name, inputs in requests if name == names[1]] == [
        ["b"],
        ["c"],
        ["b"],
    ]


def test_many_queries_in_a_request() -> None:
    requests = build_requests(METADATA, MODEL, QUERIES, batch_size=2)
    assert [read(request)[1]["user"] for request in requests] == [["u1", "u2"], ["u3"]]


def test_unusable_signatures_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"must be one of serving_default.*got 'odd'"):
        build_requests(METADATA, MODEL, QUERIES, ["odd"])
    with pytest.raises(InvalidArgumentError, match="queries with a history"):
        build_requests(METADATA, MODEL, [Query("u")], ["similar_candidates"])
