"""Channels, requests and responses of the TensorFlow Serving API over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from serving.clients import wire
from serving.clients.answer import Prediction
from serving.clients.core import Exchange
from serving.clients.model import (
    DTYPE_NAMES,
    ModelChoice,
    ModelMetadata,
    SignatureSpec,
    Tensor,
    TensorSpec,
    VersionStatus,
    decode_text,
    encode_text,
)
from serving.clients.tls import TlsOptions
from serving.errors import (
    InternalError,
    InvalidArgumentError,
    ServingError,
    UnavailableError,
    code_name,
    from_grpc_code,
)

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

_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_DTYPE_NUMBERS = {name: number for number, name in DTYPE_NAMES.items()}
_VALUE_FIELDS = {
    "float": "float_val",
    "double": "double_val",
    "int32": "int_val",
    "string": "string_val",
    "int64": "int64_val",
    "bool": "bool_val",
}
_SIGNATURE_DEF = "signature_def"


def make_channel(library: Any, target: str, tls: TlsOptions | None) -> Any:
    """Return a new channel from `library`, which is `grpc` or `grpc.aio`.

    Raises:
        InvalidArgumentError: If a file in `tls` cannot be read.
    """
    options: tuple[tuple[str, Any], ...] = _CHANNEL_OPTIONS
    if target.startswith(_REPLICA_SCHEMES):
        options += (("grpc.lb_policy_name", "round_robin"),)
    if tls is None:
        return library.insecure_channel(target, options=options)
    options += tls.channel_options()
    return library.secure_channel(target, tls.channel_credentials(), options=options)


def bind(channel: Any) -> Callable[[wire.Message, float], Any]:
    """Return a function that sends a request of the API, given the request and a timeout (s)."""
    calls = {
        request_class: channel.unary_unary(
            path,
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        for path, (request_class, response_class) in wire.METHODS.items()
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


class GrpcProtocol:
    """Builder of gRPC requests for one model, and parser of their responses."""

    def __init__(self, model: ModelChoice) -> None:
        self._model = model

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor]
    ) -> Exchange[Prediction]:
        """Build the request that runs a signature.

        Raises:
            InvalidArgumentError: If the client does not support the dtype of an input.
        """
        request = wire.PredictRequest(model_spec=_model_spec(self._model, signature.name))
        for name, tensor in inputs.items():
            _encode(name, tensor, request.inputs[name])
        return Exchange(request, _read_prediction)

    def metadata(self) -> Exchange[ModelMetadata]:
        """Build the request for the model's signatures."""
        request = wire.GetModelMetadataRequest(
            model_spec=_model_spec(self._model), metadata_field=[_SIGNATURE_DEF]
        )
        return Exchange(request, _read_metadata)

    def status(self) -> Exchange[list[VersionStatus]]:
        """Build the request for the states of the model's versions."""
        request = wire.GetModelStatusRequest(model_spec=_model_spec(self._model))
        return Exchange(request, _read_status)


def _model_spec(model: ModelChoice, signature_name: str = "") -> wire.Message:
    spec = wire.ModelSpec(name=model.name, signature_name=signature_name)
    if model.version is not None:
        spec.version.value = model.version
    if model.label is not None:
        spec.version_label = model.label
    return spec


def _read_prediction(response: wire.Message) -> Prediction:
    outputs = {name: _decode(name, proto) for name, proto in response.outputs.items()}
    return Prediction(outputs, response.model_spec.version.value)


def _read_metadata(response: wire.Message) -> ModelMetadata:
    packed = response.metadata[_SIGNATURE_DEF].value
    signatures = {
        name: SignatureSpec(
            name, _tensor_specs(definition.inputs), _tensor_specs(definition.outputs)
        )
        for name, definition in wire.SignatureDefMap.FromString(packed).signature_def.items()
    }
    return ModelMetadata(response.model_spec.version.value, signatures)


def _read_status(response: wire.Message) -> list[VersionStatus]:
    return [
        VersionStatus(
            row.version,
            _STATES.get(row.state, str(row.state)),
            code_name(row.status.error_code),
            row.status.error_message,
        )
        for row in response.model_version_status
    ]


def _encode(name: str, tensor: Tensor, proto: Any) -> None:
    if tensor.dtype not in _VALUE_FIELDS:
        raise InvalidArgumentError(
            f"The input {name!r} must have one of the types {', '.join(_VALUE_FIELDS)}, "
            f"got {tensor.dtype}"
        )
    proto.dtype = _DTYPE_NUMBERS[tensor.dtype]
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    values: Sequence[Any] = tensor.values
    if tensor.dtype == "string":
        values = [encode_text(text) for text in values]
    getattr(proto, _VALUE_FIELDS[tensor.dtype]).extend(values)


def _decode(name: str, proto: Any) -> Tensor:
    dtype = DTYPE_NAMES.get(proto.dtype)
    if dtype is None or proto.tensor_content:
        raise InternalError(f"The client cannot read the encoding of the output {name!r}")
    values = list(getattr(proto, _VALUE_FIELDS[dtype]))
    if dtype == "string":
        values = [decode_text(content) for content in values]
    return Tensor(dtype, tuple(dim.size for dim in proto.tensor_shape.dim), values)


def _tensor_specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec.from_sizes(
            DTYPE_NAMES.get(info.dtype, str(info.dtype)),
            [dim.size for dim in info.tensor_shape.dim],
            unknown_rank=info.tensor_shape.unknown_rank,
        )
        for name, info in infos.items()
    }
