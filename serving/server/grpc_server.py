"""The gRPC server, which offers PredictionService, ModelService and health checks on asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.errors import (
    CancelledError,
    DeadlineExceededError,
    ServingError,
    StartupError,
)
from serving.server.flags import AUTO_PORT, ServerFlags
from serving.server.model_service import ModelService, check_has_model_spec
from serving.server.predict import Signature, as_serving_error, predict_response
from serving.server.tensor_codec import Array

MESSAGE_LIMIT_BYTES = 1024
"""Longer error texts are cut, as in model_servers/grpc_status_util.cc."""

MAX_MESSAGE_BYTES = 2**31 - 1
"""gRPC's own limit, and TensorFlow Serving's."""

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_HEALTH_SERVICES = ("", "ModelService", "PredictionService")  # "" is the whole server.
_HEALTH = health_pb2.HealthCheckResponse


class GrpcServer:
    """The gRPC server. It binds its port when it is created and answers calls after `start`.

    Create it in a running event loop.
    """

    def __init__(
        self,
        service: ModelService,
        flags: ServerFlags,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._grace_s = flags.shutdown_grace_seconds
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", flags.max_request_bytes),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # Otherwise a second server could share the port and take half of the calls.
                ("grpc.so_reuseport", 0),
                *flags.grpc_channel_arguments,
            ]
        )
        # Added first, so that it handles Predict instead of the servicer.
        self._server.add_generic_rpc_handlers([PredictHandler(service)])
        servicer = _Servicer(service)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, self._server)
        self._health = Health() if flags.enable_grpc_healthcheck_service else None
        if self._health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port: int = self._listen(flags.bind_address, flags.port, credentials)

    async def start(self) -> None:
        """Start to answer calls."""
        if self._health:
            for name in _HEALTH_SERVICES:
                await self._health.set(name, _HEALTH.SERVING)
        await self._server.start()

    async def stop(self) -> None:
        """Reject new calls and wait for the running ones."""
        if self._health:
            await self._health.enter_graceful_shutdown()
        await self._server.stop(self._grace_s)

    def _listen(
        self, bind_address: str, port: int, credentials: grpc.ServerCredentials | None
    ) -> int:
        host = f"[{bind_address}]" if ":" in bind_address else bind_address
        address = f"{host}:{0 if port == AUTO_PORT else port}"
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise StartupError(f"--port: cannot listen on {address}: {error}") from error


class PredictHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handler of Predict that returns serialized responses, without a message for each tensor."""

    def __init__(self, service: ModelService) -> None:
        self._service = service
        self._metrics = service.metrics
        self._handler = grpc.unary_unary_rpc_method_handler(
            self._predict, request_deserializer=predict_pb2.PredictRequest.FromString
        )

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler if the called method is Predict, otherwise None."""
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
            self._metrics.request_count.add(name, code.code_name)
            raise
        except Exception as raised:  # Every call must end with a status.
            error = as_serving_error(raised)
            self._metrics.request_count.add(name, error.code_name)
            return await _abort(context, error)
        self._metrics.request_count.add(name, "OK")
        elapsed_us = (time.monotonic() - started_s) * 1e6
        self._metrics.request_latency.add(elapsed_us, name, "Predict", "GRPC")
        return response

    async def _answer(self, request: predict_pb2.PredictRequest, deadline_s: float | None) -> bytes:
        check_has_model_spec(request)
        spec = request.model_spec

        def prepare(signature: Signature) -> tuple[list[Array], tuple[str, ...]]:
            feeds = signature.feeds_from_protos(request.inputs)
            return feeds, signature.select_outputs(request.output_filter)

        version, outputs, results = await self._service.predict(spec, prepare, deadline_s)
        return predict_response(spec, version, outputs, results)


class _Servicer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """The methods of PredictionService and ModelService except Predict."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answer(context, self._service.get_model_metadata(request))

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answer(context, self._service.get_model_status(request))

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answer(context, self._service.reload_config(request))

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        await _answer(context, self._service.refuse("Classify"))

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        await _answer(context, self._service.refuse("Regress"))

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        await _answer(context, self._service.refuse("MultiInference"))


class Health(health.aio.HealthServicer):  # type: ignore[misc]
    """The health service, which reports SERVING for all services until shutdown.

    The library's own Watch never ends, so a single watching client would delay the shutdown by the
    whole grace period. This Watch sends NOT_SERVING at shutdown and ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_shutting_down = asyncio.Event()

    async def enter_graceful_shutdown(self) -> None:
        """Set all services to NOT_SERVING permanently, and end all Watch calls."""
        await super().enter_graceful_shutdown()
        self._is_shutting_down.set()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """Send the status now and once more at shutdown."""
        for waits in (False, True):
            if waits:
                await self._is_shutting_down.wait()
            status = self._server_status.get(request.service, _HEALTH.SERVICE_UNKNOWN)
            await context.write(_HEALTH(status=status))


async def _answer(context: Any, answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except Exception as raised:  # Every call must end with a status.
        await _abort(context, as_serving_error(raised))


async def _abort(context: Any, error: ServingError) -> NoReturn:
    await context.abort(_STATUS_CODES[error.grpc_code], _truncate(error.message))
    raise AssertionError("abort always raises")


def _truncate(message: str) -> str:
    encoded = message.encode("utf-8", "surrogateescape")
    if len(encoded) <= MESSAGE_LIMIT_BYTES:
        return encoded.decode("utf-8", "replace")
    return encoded[:MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"
