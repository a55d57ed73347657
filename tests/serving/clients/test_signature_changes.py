"""Clients of models whose signatures change, with version labels, and with replicas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from serving.clients import RetrievalClient, messages
from serving.errors import FailedPreconditionError, InvalidArgumentError
from tests.serving.clients.fake_server import fake_server, recommendations, signature_defs


class ChangingModel:
    """Takes a `user_id`; after `change` it also needs `country`."""

    def __init__(self) -> None:
        self.signatures: dict[str, dict[str, int]] = {"serving_default": {"user_id": 1}}
        self.metadata_calls = 0
        self.asked: list[Any] = []

    def change(self) -> None:
        self.signatures = {
            "serving_default": {"user_id": 1, "country": 1},
            "similar_candidates": {"item": 1},
        }

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        wanted = set(self.signatures[request.model_spec.signature_name])
        if set(request.inputs) != wanted:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"inputs must be {sorted(wanted)}")
        return recommendations("a", "b")

    def metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata_calls += 1
        return signature_defs(**self.signatures)

    @property
    def answers(self) -> dict[str, Any]:
        return {messages.PREDICT: self.predict, messages.GET_MODEL_METADATA: self.metadata}

    @contextmanager
    def client(self, **options: Any) -> Iterator[RetrievalClient]:
        with (
            fake_server(self.answers) as port,
            RetrievalClient(f"127.0.0.1:{port}", **options) as client,
        ):
            yield client


def test_a_call_is_repeated_with_the_inputs_of_a_new_version() -> None:
    model = ChangingModel()
    with model.client(query_id_name="user_id") as client:
        assert client.recommend("u1").candidate_ids == ("a", "b")
        model.change()
        assert client.recommend("u1").candidate_ids == ("a", "b")
        assert model.metadata_calls == 2
        assert len(model.asked) == 3


def test_a_new_signature_of_a_new_version_is_found() -> None:
    model = ChangingModel()
    with model.client() as client:
        with pytest.raises(FailedPreconditionError, match="no signature 'similar_candidates'"):
            client.similar("a")
        model.change()
        assert client.similar("a").candidate_ids == ("a", "b")


def test_a_call_that_is_wrong_for_every_version_is_not_repeated() -> None:
    model = ChangingModel()
    with model.client() as client:
        client.recommend("u1")
        model.signatures = {"serving_default": {"user_id": 1}}
        with pytest.raises(InvalidArgumentError, match="takes no history"):
            client.recommend("u1", history=["a"])
        assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("option", "version", "label"),
    [({}, 0, ""), ({"model_version": 7}, 7, ""), ({"version_label": "stable"}, 0, "stable")],
)
def test_version_and_label_reach_the_server(
    option: dict[str, Any], version: int, label: str
) -> None:
    model = ChangingModel()
    with model.client(**option) as client:
        client.recommend("u1")
    spec = model.asked[0].model_spec
    assert (spec.name, spec.version.value, spec.version_label) == ("retrieval", version, label)


def test_replicas_are_asked_in_turn() -> None:
    one, other = ChangingModel(), ChangingModel()
    with fake_server(one.answers) as first, fake_server(other.answers) as second:
        target = f"ipv4:127.0.0.1:{first},127.0.0.1:{second}"
        with RetrievalClient(target) as client:
            for _ in range(40):
                client.recommend("u1")
        assert len(one.asked) + len(other.asked) == 40
        assert min(len(one.asked), len(other.asked)) >= 5
    with fake_server(one.answers, first), RetrievalClient(target) as client:
        one.asked.clear()
        for _ in range(4):
            client.recommend("u1")
        assert len(one.asked) == 4  # The replica that is away costs nothing.
