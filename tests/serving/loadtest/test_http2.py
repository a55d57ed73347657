"""The HTTP/2 client against grpcio's server: what a load test's own requests rarely need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from serving.clients import wire
from serving.errors import (
    DeadlineExceededError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
)
from serving.loadtest.http2 import Channel
from tests.serving.clients.fake_server import fake_server, recommendations


def request(size: int = 0) -> bytes:
    message = wire.PredictRequest()
    message.inputs["user"].string_val.append(b"x" * size)
    return bytes(message.SerializeToString())


def call(port: int, use: Callable[[Channel], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        channel = Channel("127.0.0.1", port, wire.PREDICT)
        try:
            return await use(channel)
        finally:
            channel.close()

    return asyncio.run(run())


@pytest.mark.parametrize("size", [10, 16_384, 65_536, 3_000_000])
def test_requests_larger_than_frames_and_windows_arrive_whole(size: int) -> None:
    received = []

    def predict(message: Any, context: grpc.ServicerContext) -> Any:
        received.append(len(message.inputs["user"].string_val[0]))
        return recommendations("a")

    async def send(channel: Channel) -> None:
        await asyncio.gather(*(channel.call(request(size), 20.0) for _ in range(3)))

    with fake_server({wire.PREDICT: predict}) as port:
        call(port, send)
    assert received == [size] * 3


def test_a_large_answer_is_read() -> None:
    answer = recommendations(*["x" * 1000] * 5000)
    with fake_server({wire.PREDICT: lambda message, context: answer}) as port:
        call(port, lambda channel: channel.call(request(), 20.0))


def test_calls_wait_for_a_server_that_allows_few_at_once() -> None:
    def predict(message: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(0.01)
        return b"any answer"

    handler = grpc.method_handlers_generic_handler(
        "tensorflow.serving.PredictionService",
        {"Predict": grpc.unary_unary_rpc_method_handler(predict)},
    )
    server = grpc.server(
        ThreadPoolExecutor(4), [handler], options=[("grpc.max_concurrent_streams", 2)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    async def send(channel: Channel) -> None:
        await channel.call(request(), 20.0)
        await asyncio.gather(*(channel.call(request(), 20.0) for _ in range(20)))

    try:
        call(port, send)
    finally:
        server.stop(None).wait()


def test_an_error_has_its_code_and_its_whole_message() -> None:
    text = "ü: " + "the queue is full " * 2000

    def predict(message: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text[:5000])

    with (
        fake_server({wire.PREDICT: predict}) as port,
        pytest.raises(ResourceExhaustedError, match="ü: the queue is full") as caught,
    ):
        call(port, lambda channel: channel.call(request(), 20.0))
    assert caught.value.message == text[:5000]


def test_a_call_that_times_out_leaves_the_connection_usable() -> None:
    pauses = [0.3, 0.0]

    def predict(message: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(pauses.pop(0))
        return recommendations("a")

    async def send(channel: Channel) -> float:
        started_at = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await channel.call(request(), 0.1)
        took_s = time.monotonic() - started_at
        await channel.call(request(), 20.0)
        return took_s

    with fake_server({wire.PREDICT: predict}) as port:
        assert 0.1 <= call(port, send) < 0.3


def test_a_restarted_server_is_connected_again() -> None:
    answers: dict[str, Any] = {wire.PREDICT: lambda message, context: recommendations("a")}

    async def send(channel: Channel) -> list[type[ServingError] | None]:
        outcomes: list[type[ServingError] | None] = []
        for _ in range(2):
            with fake_server(answers, port) as _:
                while True:  # until the end of the old connection was noticed
                    try:
                        await channel.call(request(), 20.0)
                        break
                    except UnavailableError:
                        await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            try:
                await channel.call(request(), 20.0)
            except ServingError as error:
                outcomes.append(type(error))
        return outcomes

    with fake_server(answers) as port:
        pass
    assert call(port, send) == [UnavailableError] * 2
