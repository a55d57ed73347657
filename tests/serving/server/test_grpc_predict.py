"""Predict over gRPC: answers and refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server.grpc_server import rpc_handlers
from serving.server.metrics import Metrics
from serving.server.model_service import ModelService
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


INVALID, NOT_FOUND = "INVALID_ARGUMENT", "NOT_FOUND"
PREDICT_ERRORS = {
    "no model spec": (predict_pb2.PredictRequest, INVALID, "Missing ModelSpec"),
    "empty name": (lambda: predict_request(""), INVALID, "ModelSpec has no name specified."),
    "unknown model": (lambda: predict_request("foo"), NOT_FOUND, "request: Latest(foo)"),
    "unknown version": (lambda: predict_request(version=7), NOT_FOUND, "Specific(retrieval, 7)"),
    "unknown label": (lambda: predict_request(label="x"), INVALID, "servable version label: x"),
    "unknown signature": (
        lambda: predict_request(signature="x"),
        "FAILED_PRECONDITION",
        'Serving signature key "x" not found',
    ),
    "no input": (similar, INVALID, "must be movie_id, but movie_id are missing and none are"),
    "too many inputs": (
        lambda: similar(movie_id=["a"], x=["b"], w=["c"]),
        INVALID,
        "The inputs must be movie_id, but none are missing and w, x are unknown",
    ),
    "wrong name with defaults": (
        lambda: predict_request(user_id=["u1"], x=["a"]),
        INVALID,
        f"must be {ALL_INPUTS.replace(',', ', ')}, but none are missing and x are unknown",
    ),
    "tensor that contradicts itself": (
        lambda: similar(movie_id=contradictory_tensor()),
        INVALID,
        "tensor parsing error: movie_id",
    ),
    "unknown output": (
        lambda: similar(movie_id=["a"], output_filter=["x"]),
        INVALID,
        "must have different names out of candidate_ids, scores, but is x",
    ),
    "output twice": (
        lambda: similar(movie_id=["a"], output_filter=["scores", "scores"]),
        INVALID,
        "but is scores, scores",
    ),
    "wrong dtype of a later input": (
        # Feeds in the order of their names: age, country, history, title, user_id.
        lambda: predict_request(user_id=["u1"], history=np.int64([[1]])),
        INVALID,
        "Expects arg[2] to be string but int64 is provided",
    ),
    "wrong rank": (
        lambda: predict_request(user_id=["u1"], history=["a"]),
        INVALID,
        "Index out of range using input dim 1; input has only 1 dims",
    ),
}


@pytest.mark.parametrize("case", PREDICT_ERRORS)
def test_predict_refuses(stubs: Stubs, case: str) -> None:
    make_request, code, text = PREDICT_ERRORS[case]
    check_error(lambda: stubs.prediction.Predict(make_request(), timeout=10), code, text)


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
    assert (spec.name, spec.version.value) == ("retrieval", 1)
    assert spec.signature_name == "serving_default"


def test_inputs_given_and_defaulted_mix(stubs: Stubs) -> None:
    assert list(stubs.predict().outputs["scores"].float_val) == [5.0, 4.0, 3.0]
    scores = stubs.predict(user_id=["u1"], age=np.float32([100])).outputs["scores"]
    assert list(scores.float_val) == [104.0, 103.0, 102.0]


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
        service: Any = ModelService(None, None, Metrics())  # type: ignore[arg-type]
        service.predict = predict
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(rpc_handlers(service))
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
