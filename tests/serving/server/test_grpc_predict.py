"""Predict over gRPC: answers, and refusals with the codes and texts of TensorFlow Serving 2.16."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server.grpc_server import PredictHandler
from serving.server.metrics import Metrics
from tests.serving.server.grpc_calls import ALL_INPUTS, Stubs, check_error, predict_request


@pytest.fixture(scope="module")
def stubs(server: Any) -> Iterator[Stubs]:
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield Stubs(channel)


def contradictory_tensor() -> Any:
    proto = tf.make_tensor_proto(["u1"])
    proto.tensor_shape.dim[0].size = -1
    return proto


def similar(**options: Any) -> predict_pb2.PredictRequest:
    return predict_request(signature="similar_candidates", **options)


PREDICT_ERRORS = {
    "no model spec": (
        lambda: predict_pb2.PredictRequest(),
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "empty name": (
        lambda: predict_request(""),
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    "unknown model": (
        lambda: predict_request("foo"),
        "NOT_FOUND",
        "Servable not found for request: Latest(foo)",
    ),
    "unknown model and version": (
        lambda: predict_request("foo", version=7),
        "NOT_FOUND",
        "Servable not found for request: Specific(foo, 7)",
    ),
    "unknown version": (
        lambda: predict_request(version=7),
        "NOT_FOUND",
        "Servable not found for request: Specific(retrieval, 7)",
    ),
    "unknown label": (
        lambda: predict_request(label="x"),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: x",
    ),
    "unknown signature": (
        lambda: predict_request(signature="x"),
        "FAILED_PRECONDITION",
        'Serving signature key "x" not found.',
    ),
    "no input": (
        lambda: similar(),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({movie_id}). Sent extra: {}. "
        "Missing but required: {movie_id}.",
    ),
    "too many inputs": (
        lambda: similar(movie_id=["a"], x=["b"], w=["c"]),
        "INVALID_ARGUMENT",
        "input size does not match signature: 3!=1 len({movie_id,w,x}) != len({movie_id}). "
        "Sent extra: {w,x}. Missing but required: {}.",
    ),
    "wrong name": (
        lambda: similar(x=["a"]),
        "INVALID_ARGUMENT",
        "Signature input alias: movie_id(feed name: similar_candidates_movie_id:0) not found in "
        "request and no default value provided. Inputs expected to be in the request {x}, or "
        "default input alias set: ",
    ),
    "wrong name with defaults": (
        lambda: predict_request(user_id=["u1"], x=["a"]),
        "INVALID_ARGUMENT",
        "Inputs contains invalid name. Used request inputs: user_id, request input: user_id,x",
    ),
    "more inputs than the signature, defaults or not": (
        lambda: predict_request(**{name: ["x"] for name in "abcdef"}),
        "INVALID_ARGUMENT",
        f"input size does not match signature: 6!=5 len({{a,b,c,d,e,f}}) != len({{{ALL_INPUTS}}}). "
        f"Sent extra: {{a,b,c,d,e,f}}. Missing but required: {{{ALL_INPUTS}}}.",
    ),
    "tensor that contradicts itself": (
        lambda: similar(movie_id=contradictory_tensor()),
        "INVALID_ARGUMENT",
        "tensor parsing error: movie_id",
    ),
    "tensor without a type": (
        lambda: similar(movie_id=tensor_pb2.TensorProto()),
        "INVALID_ARGUMENT",
        "tensor parsing error: movie_id",
    ),
    "unknown output": (
        lambda: similar(movie_id=["a"], output_filter=["x"]),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: x Outputs expected to be in the set "
        "{candidate_ids,scores}.",
    ),
    "output twice": (
        lambda: similar(movie_id=["a"], output_filter=["scores", "scores"]),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: scores",
    ),
    "wrong dtype": (
        lambda: similar(movie_id=np.float32([1])),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be string but float is provided",
    ),
    "wrong dtype of a later input": (
        # Feeds in the order of their names: age, country, history, title, user_id.
        lambda: predict_request(user_id=["u1"], history=np.int64([[1]])),
        "INVALID_ARGUMENT",
        "Expects arg[2] to be string but int64 is provided",
    ),
}


@pytest.mark.parametrize("case", PREDICT_ERRORS)
def test_predict_refuses(stubs: Stubs, case: str) -> None:
    make_request, code, text = PREDICT_ERRORS[case]
    check_error(lambda: stubs.prediction.Predict(make_request(), timeout=10), code, text)


def test_wrong_rank_is_the_models_own_error(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(user_id=["u1"], history=["a"])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Index out of range using input dim 1; input has only 1 dims" in caught.value.details()


def test_long_error_texts_are_cut(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(signature="ü" * 1000)
    details = caught.value.details()
    assert details.endswith("...TRUNCATED")
    assert len(details.removesuffix("...TRUNCATED").encode()) in (1023, 1024)


def test_answers_with_typed_fields_and_the_full_model_spec(stubs: Stubs) -> None:
    response = stubs.predict(user_id=["u1", "ü→1"], history=[["c", ""], ["", ""]])

    ids, scores = response.outputs["candidate_ids"], response.outputs["scores"]
    # u1 scores a..d 1, 2, 3, 4 and the last 0.5; c is in the history and loses 10.
    assert [value.decode() for value in ids.string_val] == ["d", "b", "a", "ε→漢", "a", "b"]
    assert list(scores.float_val) == [4.0, 2.0, 1.0, 9.75, 0.25, 0.0]
    assert [dim.size for dim in ids.tensor_shape.dim] == [2, 3]
    assert not scores.tensor_content
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (
        "retrieval",
        "serving_default",
        1,
    )


def test_every_input_may_be_left_to_its_default(stubs: Stubs) -> None:
    scores = stubs.predict().outputs["scores"]
    assert list(scores.float_val) == [5.0, 4.0, 3.0]


def test_inputs_given_and_defaulted_mix(stubs: Stubs) -> None:
    scores = stubs.predict(user_id=["u1"], age=np.float32([100])).outputs["scores"]
    assert list(scores.float_val) == [104.0, 103.0, 102.0]


def test_a_version_may_be_named(stubs: Stubs) -> None:
    assert stubs.predict(version=1).model_spec.version.value == 1


def test_excluded_candidates_do_not_come_back(stubs: Stubs) -> None:
    response = stubs.predict(
        signature="recommend_excluding", user_id=["u1"], exclude=[["d", "c", ""]]
    )
    assert list(response.outputs["candidate_ids"].string_val[:2]) == [b"b", b"a"]


def test_outputs_of_rank_0(stubs: Stubs) -> None:
    outputs = stubs.predict(signature="scalars", movie_id=["ü"]).outputs
    assert list(outputs["first"].string_val) == ["ü".encode()]
    assert list(outputs["half"].float_val) == [0.5]
    assert not outputs["half"].tensor_shape.dim


def test_output_filter_selects(stubs: Stubs) -> None:
    response = stubs.predict(user_id=["u1"], output_filter=["scores"])
    assert list(response.outputs) == ["scores"]


def test_empty_batch_is_answered_with_empty_tensors(stubs: Stubs) -> None:
    empty = tf.make_tensor_proto([], tf.string)
    response = stubs.predict(signature="similar_candidates", movie_id=empty)
    for output in response.outputs.values():
        assert [dim.size for dim in output.tensor_shape.dim] == [0, 3]


def test_float_inputs_come_as_values_or_as_content(stubs: Stubs) -> None:
    values = tf.make_tensor_proto(np.float32([0.5]))
    content = tf.make_tensor_proto(np.float32([0.5]))
    content.ClearField("float_val")
    content.tensor_content = np.float32([0.5]).tobytes()
    answers = [
        list(stubs.predict(user_id=["u1"], age=age).outputs["scores"].float_val)
        for age in (values, content)
    ]
    assert answers == [[4.5, 3.5, 2.5]] * 2


def test_the_deadline_of_the_caller_goes_with_the_request() -> None:
    deadlines: list[float | None] = []

    async def predict(spec: Any, prepare: Any, deadline_s: float | None) -> Any:
        deadlines.append(deadline_s)
        return 1, (), []

    async def ask(*timeouts_s: float | None) -> None:
        service: Any = SimpleNamespace(metrics=Metrics(), predict=predict)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([PredictHandler(service)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for timeout_s in timeouts_s:
                await stub.Predict(predict_request("m"), timeout=timeout_s)
        await server.stop(0)

    started_s = time.monotonic()
    asyncio.run(ask(100, None))
    bounded, unbounded = deadlines
    assert unbounded is None
    assert bounded is not None
    # gRPC sends the remaining time in whole units, rounded up.
    assert started_s + 99 < bounded < time.monotonic() + 101
