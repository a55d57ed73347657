"""Malformed requests, which a server must reject without failing."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from serving.clients import messages, messages_pb2
from serving.errors import code_name

_TIMEOUT_S = 10.0
_DT_FLOAT, _DT_STRING = 1, 7
REFUSED = "refused"

Sender = Callable[[], Awaitable[str]]


def predict_request(name: str = "retrieval", signature: str = "", **spec: Any) -> Any:
    """Return a valid PredictRequest, except for the parts that the arguments change."""
    model_spec = messages_pb2.ModelSpec(name=name, signature_name=signature, **spec)
    request = messages_pb2.PredictRequest(model_spec=model_spec)
    set_text(request.inputs["user_id"], [1], ["user 1"])
    set_text(request.inputs["history"], [1, 1], ["item 1"])
    return request


def set_text(tensor: Any, shape: list[int], values: list[str], dtype: int = _DT_STRING) -> None:
    """Fill a TensorProto, without a check that shape and values match."""
    tensor.Clear()
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.string_val.extend(value.encode() for value in values)


def grpc_bodies() -> dict[str, bytes]:
    """Return the request bodies of invalid Predict calls, by a description of the error."""
    requests = {
        "no model": messages_pb2.PredictRequest(),
        "unknown model": predict_request("nobody"),
        "unknown version": predict_request(version={"value": 10**9}),
        "unknown label": predict_request(version_label="no such label"),
        "unknown signature": predict_request(signature="no such signature"),
    }
    for wrong, name in (("missing input", "history"), ("all inputs missing", "user_id")):
        requests[wrong] = predict_request()
        del requests[wrong].inputs[name]
    del requests["all inputs missing"].inputs["history"]
    requests["unknown input"] = predict_request()
    set_text(requests["unknown input"].inputs["no such input"], [1], ["x"])
    requests["wrong dtype"] = predict_request()
    requests["wrong dtype"].inputs["user_id"].dtype = _DT_FLOAT
    requests["unknown dtype"] = predict_request()
    requests["unknown dtype"].inputs["user_id"].dtype = 999
    requests["wrong rank"] = predict_request()
    set_text(requests["wrong rank"].inputs["history"], [1, 1, 1], ["x"])
    requests["negative size"] = predict_request()
    set_text(requests["negative size"].inputs["history"], [1, -7], ["x"])
    requests["size beyond any memory"] = predict_request()
    set_text(requests["size beyond any memory"].inputs["history"], [1, 2**50], ["x"])
    requests["sizes whose product overflows"] = predict_request()
    set_text(requests["sizes whose product overflows"].inputs["history"], [2**40, 2**40], ["x"])
    requests["size beyond what was sent"] = predict_request()
    set_text(requests["size beyond what was sent"].inputs["history"], [1, 2**28], ["x"])
    requests["rows beyond what was sent"] = predict_request()
    set_text(requests["rows beyond what was sent"].inputs["history"], [2**28, 0], [])
    requests["batches of two sizes"] = predict_request()
    set_text(requests["batches of two sizes"].inputs["user_id"], [2], ["user 1", "user 2"])
    set_text(requests["batches of two sizes"].inputs["history"], [3, 1], ["x", "y", "z"])
    requests["unknown output"] = predict_request()
    requests["unknown output"].output_filter.append("no such output")
    bodies = {name: request.SerializeToString() for name, request in requests.items()}
    whole = predict_request().SerializeToString()
    return {**bodies, "no protobuf": b"\xff" * 64, "half a protobuf": whole[: len(whole) // 2]}


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


def senders(channel: Any, host: str, grpc_port: int, rest_port: int) -> dict[str, Sender]:
    """Return functions that send one malformed request each, by a description of the error.

    Each function returns the name of a gRPC status code, or `REFUSED` if bytes over TCP did not get
    an OK response.

    Args:
        channel: A `grpc.aio` channel to the server.
        host: The server's host.
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
        return lambda: _exchange(host, port, content)

    return {
        **{name: over_grpc(body) for name, body in grpc_bodies().items()},
        **{name: over_tcp(rest_port, content) for name, content in http_exchanges().items()},
        "no HTTP/2": over_tcp(grpc_port, b"GET / HTTP/1.1\r\n\r\n"),
        "half of HTTP/2": over_tcp(grpc_port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\xff"),
    }


async def _exchange(host: str, port: int, content: bytes) -> str:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return "UNAVAILABLE"
    try:
        writer.write(content)
        await writer.drain()
        # After some of these requests the server waits for more bytes, so limit the wait.
        answer = await asyncio.wait_for(reader.read(4096), 1.0)
        return "OK" if answer.split(b"\r\n")[0].endswith(b" 200 OK") else REFUSED
    except (OSError, asyncio.TimeoutError):
        return REFUSED
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
