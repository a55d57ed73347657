"""The gRPC clients: a blocking one and one for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import grpc

from serving.clients.answer import Embedding, Recommendations
from serving.clients.blocking_client import BlockingClient
from serving.clients.messages import METHODS, GrpcProtocol, Message
from serving.clients.model import ModelMetadata, VersionStatus, encode_text
from serving.clients.retrieval_client import ClientOptions, RetrievalMethods
from serving.clients.retry import Flow
from serving.clients.tls import TlsOptions
from serving.errors import InvalidArgumentError, ServingError, UnavailableError, from_grpc_code

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_send_message_length", 2**31 - 1),
    # The clients retry calls themselves; retries in gRPC would multiply the attempts.
    ("grpc.enable_retries", 0),
    # By default, gRPC waits 1 s or more before it reconnects, and calls fail in the meantime.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Without this option, all clients of the process share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)
# Targets with these schemes can have several addresses, which get the requests in turn. A plain
# `host:port` keeps gRPC's default policy, which reconnects as soon as there is a call.
_REPLICA_SCHEMES = ("dns:", "ipv4:", "ipv6:")


def make_channel(library: Any, target: str, tls: TlsOptions | None) -> Any:
    """Return a new channel from `library`, which is `grpc` or `grpc.aio`."""
    if not isinstance(target, str):
        raise InvalidArgumentError(f"target must be like 'host:8500', got {target!r}")
    encode_text(target)
    options: tuple[tuple[str, Any], ...] = _CHANNEL_OPTIONS
    if target.startswith(_REPLICA_SCHEMES):
        options += (("grpc.lb_policy_name", "round_robin"),)
    if tls is None:
        return library.insecure_channel(target, options=options)
    options += tls.channel_options()
    return library.secure_channel(target, tls.channel_credentials(), options=options)


def bind(channel: Any) -> Callable[[Message, float], Any]:
    """Return a function that sends a request of the API, given the request and a timeout (s)."""
    calls = {
        request_class: channel.unary_unary(
            path,
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        for path, (request_class, response_class) in METHODS.items()
    }
    return lambda request, timeout_s: calls[type(request)](request, timeout=timeout_s)


def as_serving_error(error: grpc.RpcError) -> ServingError:
    """Convert gRPC's error of a failed call."""
    code, message = error.code().value[0], error.details() or ""
    if error.code() is grpc.StatusCode.CANCELLED:
        # The clients never read the error of a call that they cancelled. So a proxy cancelled
        # it, or a server that was shutting down.
        return UnavailableError(f"The call was cancelled by the server or a proxy: {message}")
    return from_grpc_code(code, message)


def send(call: Callable[[Message, float], Message], request: Message, timeout_s: float) -> Message:
    """Call a function from `bind` of a blocking channel; raise gRPC's error as `ServingError`."""
    try:
        return call(request, timeout_s)
    except grpc.RpcError as error:
        raise as_serving_error(error) from error


class RetrievalClient(BlockingClient):
    """A client of a retrieval model over gRPC.

        with RetrievalClient("127.0.0.1:8500") as client:
            client.recommend("u1", history=["m1", "m2"], features={"age": 30}, k=10)

    Args:
        target: `host:port`, or `dns:///name:port` to send requests to all addresses of the name
            in turn.
        model_name: The name under which the model is served.
        tls: TLS options; None for an unencrypted connection.
        channel: A channel to use instead of a new one. The client does not close it.
        options: See `RetrievalMethods`.

    Raises:
        InvalidArgumentError: If an option is invalid or a file in `tls` cannot be read.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "retrieval",
        *,
        tls: TlsOptions | None = None,
        channel: grpc.Channel | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(GrpcProtocol, model_name, **options)
        self._owns_channel = channel is None
        self._channel = channel or make_channel(grpc, target, tls)
        self._call = bind(self._channel)

    def close(self) -> None:
        """Close the channel unless the caller passed it."""
        if self._owns_channel:
            self._channel.close()

    def _send(self, request: Any, timeout_s: float) -> Any:
        return send(self._call, request, timeout_s)


class AsyncRetrievalClient(
    RetrievalMethods[
        Coroutine[Any, Any, Recommendations],
        Coroutine[Any, Any, list[Recommendations]],
        Coroutine[Any, Any, Embedding],
        Coroutine[Any, Any, list[Embedding]],
        Coroutine[Any, Any, ModelMetadata],
        Coroutine[Any, Any, list[VersionStatus]],
    ]
):
    """An asyncio client of a retrieval model over gRPC; each method returns a coroutine.

        async with AsyncRetrievalClient("127.0.0.1:8500") as client:
            await client.recommend("u1", history=["m1", "m2"], features={"age": 30}, k=10)

    The calls share a connection and can run concurrently. Create and use the client in the same
    event loop. The arguments are those of `RetrievalClient`, but `channel` must be a
    `grpc.aio.Channel`.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "retrieval",
        *,
        tls: TlsOptions | None = None,
        channel: grpc.aio.Channel | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(GrpcProtocol, model_name, **options)
        self._owns_channel = channel is None
        self._channel = channel or make_channel(grpc.aio, target, tls)
        self._call = bind(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel unless the caller passed it."""
        if self._owns_channel:
            await self._channel.close()

    async def _run(self, flow: Flow[Any]) -> Any:
        response: Any = None
        try:
            while True:
                step = flow.send(response)
                if step.pause_s:
                    await asyncio.sleep(step.pause_s)
                try:
                    response = await self._call(step.request, step.timeout_s)
                except grpc.RpcError as error:
                    response = as_serving_error(error)
        except StopIteration as stop:
            return stop.value
