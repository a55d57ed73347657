"""The gRPC clients: a blocking one and one for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import grpc

from serving.clients.answer import Embedding, Recommendations
from serving.clients.core import Flow, Pause
from serving.clients.grpc_protocol import GrpcProtocol, as_serving_error, bind, make_channel
from serving.clients.model import ModelMetadata, VersionStatus
from serving.clients.retrieval_client import BlockingClient, ClientOptions, RetrievalMethods
from serving.clients.tls import TlsOptions
from serving.errors import ServingError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


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
        try:
            return self._call(request, timeout_s)
        except grpc.RpcError as error:
            raise as_serving_error(error) from error


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
        try:
            step = next(flow)
            while True:
                response = None
                try:
                    if isinstance(step, Pause):
                        await asyncio.sleep(step.seconds)
                    else:
                        response = await self._send(step.request, step.timeout_s)
                except ServingError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as stop:
            return stop.value

    async def _send(self, request: Any, timeout_s: float) -> Any:
        try:
            return await self._call(request, timeout_s)
        except grpc.RpcError as error:
            raise as_serving_error(error) from error
