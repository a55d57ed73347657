"""The gRPC front end: PredictionService and ModelService on one asyncio server."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.errors import (
    CancelledError,
    DeadlineExceededError,
    InternalError,
    ServingError,
)
from serving.server import event_log
from serving.server.async_batching import AsyncBatcher
from serving.server.example_methods import (
    refuse_classify,
    refuse_multi_inference,
    refuse_regress,
)
from serving.server.flags import AUTO_PORT
from serving.server.health import Health
from serving.server.model_service import ModelService
from serving.server.predict import prepare, respond

MESSAGE_LIMIT_BYTES = 1024
"""Longer error texts are cut here; `ToGRPCStatus` in model_servers/grpc_status_util.cc."""

MAX_MESSAGE_BYTES = 2**31 - 1
"""gRPC's own limit, and TensorFlow Serving's."""

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

_PREDICT = "/tensorflow.serving.PredictionService/Predict"

_Response = TypeVar("_Response")


async def answer(answering: Awaitable[_Response], context: grpc.aio.ServicerContext) -> _Response:
    """Return what `answering` yields, or abort the call with its error."""
    try:
        return await answering
    except Exception as error:
        return await abort(context, as_serving_error(error))


def as_serving_error(error: Exception) -> ServingError:
    """Return an error that has a code; a defect is logged and becomes INTERNAL."""
    if isinstance(error, ServingError):
        return error
    event_log.error("request_crashed", error=repr(error))
    return InternalError(f"{type(error).__name__}: {error}")


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
        self._metrics = service.metrics
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
        started_s = time.monotonic()
        name = request.model_spec.name
        time_remaining_s = context.time_remaining()
        deadline_s = None if time_remaining_s is None else started_s + time_remaining_s
        try:
            response = await self._answer(request, deadline_s)
        except asyncio.CancelledError:
            is_late = deadline_s is not None and time.monotonic() >= deadline_s
            code = DeadlineExceededError if is_late else CancelledError
            self._metrics.request_count.add(name, code.code_name())
            raise
        except Exception as raised:
            error = as_serving_error(raised)
            self._metrics.request_count.add(name, error.code_name())
            return await abort(context, error)
        self._metrics.request_count.add(name, "OK")
        elapsed_us = (time.monotonic() - started_s) * 1e6
        self._metrics.request_latency.add(elapsed_us, name, "Predict", "GRPC")
        return response

    async def _answer(self, request: predict_pb2.PredictRequest, deadline_s: float | None) -> bytes:
        with self._service.use(request) as model:
            call = prepare(model, request, deadline_s)
            started_s = time.monotonic()
            results = await self._batcher.run(call)
            elapsed_us = (time.monotonic() - started_s) * 1e6
            self._metrics.runtime_latency.add(elapsed_us, request.model_spec.name, "Predict", "TF1")
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
        error = refuse_classify(self._service.manager, request)
        await self._refuse(request.model_spec.name, error, context)

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse, as TensorFlow Serving refuses it for a retrieval signature."""
        error = refuse_regress(self._service.manager, request)
        await self._refuse(request.model_spec.name, error, context)

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse, as TensorFlow Serving refuses it for retrieval signatures."""
        await abort(context, refuse_multi_inference(self._service.manager, request))

    async def _refuse(self, name: str, error: ServingError, context: Any) -> None:
        self._service.metrics.request_count.add(name, error.code_name())
        await abort(context, error)


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


@dataclasses.dataclass(frozen=True)
class GrpcOptions:
    """How the gRPC front end listens.

    Attributes:
        bind_address: The address to listen on.
        port: The port, or `AUTO_PORT`.
        credentials: For TLS; None for plain text.
        max_request_bytes: Larger requests are refused by gRPC as RESOURCE_EXHAUSTED.
        channel_arguments: More of gRPC's own arguments.
        answers_health_checks: Whether `grpc.health.v1` is offered.
    """

    bind_address: str
    port: int
    credentials: grpc.ServerCredentials | None = None
    max_request_bytes: int = MAX_MESSAGE_BYTES
    channel_arguments: tuple[tuple[str, int | str], ...] = ()
    answers_health_checks: bool = False


class GrpcServer:
    """The gRPC front end; listens from construction on, answers from `start` on.

    Must be made on a running event loop.

    Args:
        service: Answers the calls.
        options: How it listens.

    Raises:
        OSError: If the port is taken.
    """

    def __init__(self, service: ModelService, options: GrpcOptions) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", options.max_request_bytes),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # Else a second server on the same port would start and take half of the calls.
                ("grpc.so_reuseport", 0),
                *options.channel_arguments,
            ]
        )
        self._server.add_generic_rpc_handlers([PredictHandler(service)])  # Before the next one.
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(service), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(service), self._server
        )
        self._health = Health() if options.answers_health_checks else None
        if self._health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port: int = self._listen(options)

    def _listen(self, options: GrpcOptions) -> int:
        host = f"[{options.bind_address}]" if ":" in options.bind_address else options.bind_address
        address = f"{host}:{0 if options.port == AUTO_PORT else options.port}"
        try:
            if options.credentials is None:
                port: int = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, options.credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{options.port} for gRPC: {error}") from error
        if not port:
            raise OSError(f"cannot listen on {host}:{options.port} for gRPC")
        return port

    async def start(self) -> None:
        """Start to answer."""
        if self._health:
            await self._health.enter_serving()
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once; return when the running ones are answered.

        Args:
            grace_s: How long to wait for them at most.
        """
        if self._health:
            await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
