"""Malformed requests, which a server must reject without failing."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from benchmarks._serving_model import DT_FLOAT, predict_body
from serving.clients import messages, messages_pb2
from serving.errors import code_name

_TIMEOUT_S = 10.0

Sender = Callable[[], Awaitable[str]]


def grpc_bodies() -> dict[str, bytes]:
    """Return the request bodies of invalid Predict calls, by a description of the error."""
    valid = predict_body()
    filtered = messages_pb2.PredictRequest.FromString(valid)
    filtered.output_filter.append("no such output")
    return {
        "no model": b"",
        "unknown model": predict_body("nobody"),
        "unknown version": predict_body(version={"value": 10**9}),
        "unknown label": predict_body(version_label="no such label"),
        "unknown signature": predict_body(signature="no such signature"),
        "unknown input": predict_body(other=([1], [b"x"])),
        "wrong dtype": predict_body(user_id=([1], [b"u1"], DT_FLOAT)),
        "unknown dtype": predict_body(user_id=([1], [b"u1"], 999)),
        "wrong rank": predict_body(history=([1, 1, 1], [b"x"])),
        "negative size": predict_body(history=([1, -7], [b"x"])),
        "size beyond any memory": predict_body(history=([1, 2**50], [b"x"])),
        "sizes whose product overflows": predict_body(history=([2**40, 2**40], [b"x"])),
        "size beyond what was sent": predict_body(history=([1, 2**28], [b"x"])),
        "rows beyond what was sent": predict_body(history=([2**28, 0], [])),
        "batches of two sizes": predict_body(
            user_id=([2], [b"u1", b"u2"]), history=([3, 1], [b"x", b"y", b"z"])
        ),
        "unknown output": filtered.SerializeToString(),
        "no protobuf": b"\xff" * 64,
        "half a protobuf": valid[: len(valid) // 2],
    }


def http_exchanges() -> dict[str, bytes]:
    """Return the bytes to send to the REST port over TCP, by a description of the error."""

    def post(path: str, body: bytes, length: int | None = None) -> bytes:
        size = len(body) if length is None else length
        return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (
            path.encode(), size, body,
        )  # fmt: skip

    predict = "/v1/models/retrieval:predict"
    return {
        "no JSON": post(predict, b"{"),
        "JSON without inputs": post(predict, b"{}"),
        "inputs and instances": post(predict, b'{"inputs": {}, "instances": []}'),
        "a number for text": post(predict, json.dumps({"inputs": {"user_id": [1]}}).encode()),
        "deep JSON": post(predict, b"[" * 50_000),
        "unknown path": post("/v2/models", b"{}"),
        "unknown model over REST": post("/v1/models/nobody:predict", b'{"instances": ["x"]}'),
        "no method": b"\x00\x01\x02\x03\r\n\r\n",
        "endless header": b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
        "a body that stops": post(predict, b'{"inputs"', length=1000),
        "wrong length": b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    }


def senders(channel: Any, grpc_port: int, rest_port: int) -> dict[str, Sender]:
    """Return functions that send one malformed request each, by a description of the error.

    Each function returns the name of a gRPC status code, or "refused" if bytes over TCP did not get
    an OK response.

    Args:
        channel: A `grpc.aio` channel to the server.
        grpc_port: The gRPC port, for bytes that are not valid HTTP/2.
        rest_port: The REST port.
    """
    predict = channel.unary_unary(messages.PREDICT)

    def over_grpc(body: bytes) -> Sender:
        async def send() -> str:
            try:
                await predict(body, timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                return code_name(error.code().value[0])
            return "OK"

        return send

    def over_tcp(port: int, content: bytes) -> Sender:
        return lambda: _exchange(port, content)

    return {
        **{name: over_grpc(body) for name, body in grpc_bodies().items()},
        **{name: over_tcp(rest_port, content) for name, content in http_exchanges().items()},
        "no HTTP/2": over_tcp(grpc_port, b"GET / HTTP/1.1\r\n\r\n"),
        "half of HTTP/2": over_tcp(grpc_port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\xff"),
    }


async def _exchange(port: int, content: bytes) -> str:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return "UNAVAILABLE"
    try:
        writer.write(content)
        await writer.drain()
        # After some of these requests the server waits for more bytes, so limit the wait.
        answer = await asyncio.wait_for(reader.read(4096), 1.0)
        return "OK" if answer.split(b"\r\n")[0].endswith(b" 200 OK") else "refused"
    except (OSError, asyncio.TimeoutError):
        return "refused"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
