"""What a Predict call over gRPC hands to the batcher."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server.batching import Call, Receiver
from serving.server.grpc_server import PredictHandler
from serving.server.metrics import Metrics


class Recorder:
    """A batcher that keeps the calls and is done with them at once."""

    num_threads = 1
    num_waiting = 0
    max_enqueued_calls = 10

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def submit(self, calls: Sequence[Call], receiver: Receiver) -> None:
        self.calls.extend(calls)
        receiver(list(calls))


class EmptySignature:
    """Takes nothing and gives nothing."""

    def decode_inputs(self, inputs: Any) -> dict[str, Any]:
        return {}

    def select_outputs(self, wanted: Any) -> tuple[str, ...]:
        return ()

    def order_feeds(self, arrays: Any) -> list[Any]:
        return []


async def ask(batcher: Recorder, *timeouts_s: float | None) -> None:
    model = SimpleNamespace(version=1, signatures={"serving_default": EmptySignature()})
    service: Any = SimpleNamespace(
        batcher=batcher, metrics=Metrics(), use=lambda request: contextlib.nullcontext(model)
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([PredictHandler(service)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for timeout_s in timeouts_s:
            await stub.Predict(request, timeout=timeout_s)
    await server.stop(0)


def test_the_callers_deadline_goes_with_the_call() -> None:
    batcher = Recorder()
    started_s = time.monotonic()
    asyncio.run(ask(batcher, 100, None))
    ended_s = time.monotonic()
    bounded, unbounded = batcher.calls
    assert unbounded.deadline_s is None
    assert bounded.deadline_s is not None
    # gRPC sends the time that is left in whole units and rounds it up.
    assert started_s + 99 < bounded.deadline_s < ended_s + 101
