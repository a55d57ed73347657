"""The gRPC server, which offers PredictionService, ModelService and health checks on asyncio."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from serving.errors import CancelledError, DeadlineExceededError, ServingError, StartupError
from serving.server.flags import AUTO_PORT, ServerFlags
from serving.server.model_service import ModelService, check_has_model_spec
from serving.server.predict import Signature, as_serving_error, predict_response
from serving.server.tensor_codec import Array

# Longer error texts are cut, as in model_servers/grpc_status_util.cc.
_MESSAGE_LIMIT_BYTES = 1024
# gRPC's own limit, and TensorFlow Serving's.
_MAX_MESSAGE_BYTES = 2**31 - 1
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
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
                ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                # Otherwise a second server could share the port and take half of the calls.
                ("grpc.so_reuseport", 0),
                *flags.grpc_channel_arguments,
            ]
        )
        self._server.add_generic_rpc_handlers(rpc_handlers(service))
        self._health = Health() if flags.enable_grpc_healthcheck_service else None
        if self._health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        host = f"[{flags.bind_address}]" if ":" in flags.bind_address else flags.bind_address
        address = f"{host}:{0 if flags.port == AUTO_PORT else flags.port}"
        try:
            if credentials is None:
                self.port: int = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise StartupError(f"--port: cannot listen on {address}: {error}") from error

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


def rpc_handlers(service: ModelService) -> list[grpc.GenericRpcHandler]:
    """Return the handlers of PredictionService and ModelService."""

    def handler(
        answer: Callable[[Any], Awaitable[Message]], request_class: type[Message] | None = None
    ) -> grpc.RpcMethodHandler:
        async def handle(request: Any, context: grpc.aio.ServicerContext) -> bytes:
            try:
                return (await answer(request)).SerializeToString()
            except Exception as raised:  # Every call must end with a status.
                await _abort(context, as_serving_error(raised))

        deserializer = request_class and request_class.FromString
        return grpc.unary_unary_rpc_method_handler(handle, request_deserializer=deserializer)

    prediction = {
        method: handler(functools.partial(service.refuse, method))
        for method in ("Classify", "Regress", "MultiInference")
    }
    prediction["GetModelMetadata"] = handler(
        service.get_model_metadata, get_model_metadata_pb2.GetModelMetadataRequest
    )
    prediction["Predict"] = grpc.unary_unary_rpc_method_handler(
        functools.partial(_predict, service),
        request_deserializer=predict_pb2.PredictRequest.FromString,
    )
    model = {
        "GetModelStatus": handler(
            service.get_model_status, get_model_status_pb2.GetModelStatusRequest
        ),
        "HandleReloadConfigRequest": handler(
            service.reload_config, model_management_pb2.ReloadConfigRequest
        ),
    }
    return [
        grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
        grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
    ]


async def _predict(
    service: ModelService, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext
) -> bytes:
    """Return a serialized response, which is built without a message for each tensor."""
    started_s = time.monotonic()
    metrics, spec = service.metrics, request.model_spec
    time_remaining_s = context.time_remaining()
    deadline_s = None if time_remaining_s is None else started_s + time_remaining_s

    def prepare(signature: Signature) -> tuple[list[Array], tuple[str, ...]]:
        feeds = signature.feeds_from_protos(request.inputs)
        return feeds, signature.select_outputs(request.output_filter)

    try:
        check_has_model_spec(request)
        version, outputs, results = await service.predict(spec, prepare, deadline_s)
        response = predict_response(spec, version, outputs, results)
    except asyncio.CancelledError:
        is_late = deadline_s is not None and time.monotonic() >= deadline_s
        code = DeadlineExceededError if is_late else CancelledError
        metrics.request_count.add(spec.name, code.code_name)
        raise
    except Exception as raised:  # Every call must end with a status.
        error = as_serving_error(raised)
        metrics.request_count.add(spec.name, error.code_name)
        await _abort(context, error)
    metrics.request_count.add(spec.name, "OK")
    elapsed_us = (time.monotonic() - started_s) * 1e6
    metrics.request_latency.add(elapsed_us, spec.name, "Predict", "GRPC")
    return response


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # The package has no types.
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


async def _abort(context: Any, error: ServingError) -> NoReturn:
    await context.abort(_STATUS_CODES[error.grpc_code], _truncate(error.message))
    raise AssertionError("abort always raises")


def _truncate(message: str) -> str:
    encoded = message.encode("utf-8", "surrogateescape")
    if len(encoded) <= _MESSAGE_LIMIT_BYTES:
        return encoded.decode("utf-8", "replace")
    return encoded[:_MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"
