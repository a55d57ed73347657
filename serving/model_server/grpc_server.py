"""The gRPC front end: PredictionService and ModelService on one asyncio server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from serving.errors import InternalError, ServingError, UnavailableError, UnimplementedError
from serving.model_server import event_log
from serving.model_server.flags import AUTO_PORT
from serving.model_server.model_service import ModelService

MESSAGE_LIMIT_BYTES = 1024
"""Longer error texts are cut here; `ToGRPCStatus` in model_servers/grpc_status_util.cc."""

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

_Request = TypeVar("_Request")


async def answer(
    method: Callable[[_Request], Any],
    request: _Request,
    context: grpc.aio.ServicerContext,
    executor: Executor | None = None,
) -> Any:
    """Run `method` off the event loop and return its response, or abort with its error.

    Args:
        method: A method of `ModelService`.
        request: Its request.
        context: The call.
        executor: The threads to run it in; by default asyncio's own, which are not busy with
            models.
    """
    try:
        answering = asyncio.get_running_loop().run_in_executor(executor, method, request)
    except RuntimeError:  # The pool is shut down: the drain ran out of time.
        await abort(context, UnavailableError("The server is shutting down"))
    try:
        return await answering
    except ServingError as raised:
        error: ServingError = raised
    except Exception as raised:
        event_log.error("request_crashed", error=repr(raised))
        error = InternalError(f"{type(raised).__name__}: {raised}")
    return await abort(context, error)


async def abort(context: grpc.aio.ServicerContext, error: ServingError) -> NoReturn:
    """End a call with the status of `error`."""
    await context.abort(_STATUS_CODES[error.grpc_code], truncate(error.message))
    raise AssertionError("abort returns by raising")


def truncate(message: str) -> str:
    """Cut a text to what TensorFlow Serving sends."""
    encoded = message.encode("utf-8", "surrogateescape")
    if len(encoded) <= MESSAGE_LIMIT_BYTES:
        return encoded.decode("utf-8", "replace")
    return encoded[:MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`tensorflow.serving.PredictionService`."""

    def __init__(self, service: ModelService, executor: Executor) -> None:
        self._service = service
        self._executor = executor

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run a signature."""
        return await answer(self._service.predict, request, context, self._executor)

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Describe a version's signatures."""
        return await answer(self._service.get_model_metadata, request, context)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: a retrieval model has no classification signature."""
        await abort(context, UnimplementedError("Classify is not offered; use Predict"))

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: a retrieval model has no regression signature."""
        await abort(context, UnimplementedError("Regress is not offered; use Predict"))

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: it combines Classify and Regress."""
        await abort(context, UnimplementedError("MultiInference is not offered; use Predict"))


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """`tensorflow.serving.ModelService`."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell the state of one version, or of all."""
        return await answer(self._service.get_model_status, request, context)

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: the model is set by flags."""
        await abort(
            context,
            UnimplementedError(
                "HandleReloadConfigRequest is not offered; this server serves the model of its "
                "--model_name and --model_base_path flags"
            ),
        )


def build_server(
    service: ModelService, executor: Executor, bind_address: str, port: int
) -> tuple[grpc.aio.Server, int]:
    """Make a server that listens; the caller starts it.

    Must be called on a running event loop.

    Args:
        service: Answers the calls.
        executor: The threads that models are run in.
        bind_address: The address to listen on.
        port: The port, or `AUTO_PORT`.

    Returns:
        The server and its port.

    Raises:
        OSError: If the port is taken.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", 2**31 - 1),
            ("grpc.max_send_message_length", 2**31 - 1),
            # Else a second server on the same port would start and take half of the calls.
            ("grpc.so_reuseport", 0),
        ]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionServicer(service, executor), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(service), server)
    host = f"[{bind_address}]" if ":" in bind_address else bind_address
    try:
        bound_port = server.add_insecure_port(f"{host}:{0 if port == AUTO_PORT else port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port} for gRPC: {error}") from error
    if not bound_port:
        raise OSError(f"cannot listen on {host}:{port} for gRPC")
    return server, bound_port
