"""The gRPC front end: PredictionService and ModelService on one asyncio server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.errors import InternalError, ServingError
from serving.model_server import event_log
from serving.model_server.async_batching import AsyncBatcher
from serving.model_server.example_methods import (
    refuse_classify,
    refuse_multi_inference,
    refuse_regress,
)
from serving.model_server.flags import AUTO_PORT
from serving.model_server.model_service import ModelService
from serving.model_server.predict import prepare, respond

MESSAGE_LIMIT_BYTES = 1024
"""Longer error texts are cut here; `ToGRPCStatus` in model_servers/grpc_status_util.cc."""

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

_PREDICT = "/tensorflow.serving.PredictionService/Predict"

_Response = TypeVar("_Response")


async def answer(answering: Awaitable[_Response], context: grpc.aio.ServicerContext) -> _Response:
    """Return what `answering` yields, or abort the call with its error."""
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


class PredictHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers Predict in bytes, which spares a message for each tensor."""

    def __init__(self, service: ModelService) -> None:
        self._service = service
        self._batcher = AsyncBatcher(service.batcher)
        self._handler = grpc.unary_unary_rpc_method_handler(
            self._predict, request_deserializer=predict_pb2.PredictRequest.FromString
        )

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler if the call is a Predict."""
        return self._handler if details.method == _PREDICT else None

    async def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext
    ) -> bytes:
        return await answer(self._answer(request, context.time_remaining()), context)

    async def _answer(
        self, request: predict_pb2.PredictRequest, time_remaining_s: float | None
    ) -> bytes:
        deadline_s = None if time_remaining_s is None else time.monotonic() + time_remaining_s
        with self._service.use(request) as model:
            call = prepare(model, request, deadline_s)
            results = await self._batcher.run(call)
            return respond(request.model_spec, model.version, call.outputs, results)


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The other methods of `tensorflow.serving.PredictionService`."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Describe a version's signatures."""
        return await answer(asyncio.to_thread(self._service.get_model_metadata, request), context)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse, as TensorFlow Serving refuses it for a retrieval signature."""
        await abort(context, refuse_classify(self._service.manager, request))

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse, as TensorFlow Serving refuses it for a retrieval signature."""
        await abort(context, refuse_regress(self._service.manager, request))

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse, as TensorFlow Serving refuses it for retrieval signatures."""
        await abort(context, refuse_multi_inference(self._service.manager, request))


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """`tensorflow.serving.ModelService`."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell the state of one version, or of all."""
        return await answer(asyncio.to_thread(self._service.get_model_status, request), context)

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve other models, versions and labels; returns once new models are available."""
        return await answer(self._service.reload_config(request), context)


def build_server(
    service: ModelService, bind_address: str, port: int
) -> tuple[grpc.aio.Server, int]:
    """Make a server that listens; the caller starts it.

    Must be called on a running event loop.

    Args:
        service: Answers the calls.
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
    server.add_generic_rpc_handlers([PredictHandler(service)])  # Comes before the next one.
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionServicer(service), server
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
