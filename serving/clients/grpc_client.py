"""The gRPC client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from serving.clients import wire
from serving.clients.model_metadata import (
    DTYPE_NAMES,
    ModelMetadata,
    SignatureSpec,
    TensorSpec,
    VersionStatus,
)
from serving.clients.retrieval_client import DEFAULT_TIMEOUT_S, BaseRetrievalClient
from serving.clients.retry import RetryPolicy
from serving.clients.tensor import Tensor, decode_text, encode_text
from serving.clients.transport import Prediction
from serving.errors import InternalError, InvalidArgumentError, code_name, from_grpc_code

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
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_send_message_length", 2**31 - 1),
    # The client's own policy retries; two layers would multiply the attempts.
    ("grpc.enable_retries", 0),
    # Else a server that was away for a moment fails every call for a second or more: gRPC's own
    # pause before it connects again, which no retry shortens.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class RetrievalClient(BaseRetrievalClient):
    """Asks a retrieval model over gRPC.

        with RetrievalClient("127.0.0.1:8500") as client:
            client.recommend("u1", history=["m1", "m2"], features={"age": 30}, k=10)

    Args:
        target: `host:port`.
        model_name: The name under which the model is served.
        model_version: The version to ask; None for the newest.
        timeout_s: How long a call may take, retries included.
        retry_policy: How often a call is tried again while the server cannot be reached.
        query_id_name: The input that takes the query id; needed only where the model has several
            inputs that could be it.
        candidate_id_name: The input that takes the candidate id; likewise.
        channel: A channel to use instead of a new one without encryption; it is left open.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "retrieval",
        *,
        model_version: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_policy: RetryPolicy = RetryPolicy(),
        query_id_name: str | None = None,
        candidate_id_name: str | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        super().__init__(
            GrpcTransport(target, model_name, model_version, channel),
            timeout_s=timeout_s,
            retry_policy=retry_policy,
            query_id_name=query_id_name,
            candidate_id_name=candidate_id_name,
        )


class GrpcTransport:
    """The way to a model over gRPC."""

    def __init__(
        self,
        target: str,
        model_name: str,
        model_version: int | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        self._owns_channel = channel is None
        self._channel = channel or grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._model_name = model_name
        self._model_version = model_version
        self._predict = self._method(wire.PREDICT, wire.PredictRequest, wire.PredictResponse)
        self._get_metadata = self._method(
            wire.GET_MODEL_METADATA, wire.GetModelMetadataRequest, wire.GetModelMetadataResponse
        )
        self._get_status = self._method(
            wire.GET_MODEL_STATUS, wire.GetModelStatusRequest, wire.GetModelStatusResponse
        )

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor], timeout_s: float
    ) -> Prediction:
        """Run a signature."""
        request = wire.PredictRequest(model_spec=self._model_spec(signature.name))
        for name, tensor in inputs.items():
            _encode(name, tensor, request.inputs[name])
        response = _call(self._predict, request, timeout_s)
        outputs = {name: _decode(name, proto) for name, proto in response.outputs.items()}
        return Prediction(outputs, response.model_spec.version.value)

    def metadata(self, timeout_s: float) -> ModelMetadata:
        """Describe the model's signatures."""
        request = wire.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        response = _call(self._get_metadata, request, timeout_s)
        packed = response.metadata["signature_def"].value
        definitions = wire.SignatureDefMap.FromString(packed).signature_def
        return ModelMetadata(
            response.model_spec.version.value,
            {
                name: SignatureSpec(
                    name, _tensor_specs(definition.inputs), _tensor_specs(definition.outputs)
                )
                for name, definition in definitions.items()
            },
        )

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Tell the states of the model's versions."""
        request = wire.GetModelStatusRequest(model_spec=self._model_spec())
        response = _call(self._get_status, request, timeout_s)
        return [
            VersionStatus(
                row.version,
                _STATES.get(row.state, str(row.state)),
                code_name(row.status.error_code),
                row.status.error_message,
            )
            for row in response.model_version_status
        ]

    def close(self) -> None:
        """Close the channel unless it is the caller's."""
        if self._owns_channel:
            self._channel.close()

    def _method(self, path: str, request: Any, response: Any) -> Callable[..., Any]:
        method: Callable[..., Any] = self._channel.unary_unary(
            path,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return method

    def _model_spec(self, signature_name: str = "") -> Any:
        spec = wire.ModelSpec(name=self._model_name, signature_name=signature_name)
        if self._model_version is not None:
            spec.version.value = self._model_version
        return spec


def _call(method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise from_grpc_code(error.code().value[0], error.details() or "") from error


def _encode(name: str, tensor: Tensor, proto: Any) -> None:
    if tensor.dtype not in _VALUE_FIELDS:
        raise InvalidArgumentError(f"The input {name!r} has type {tensor.dtype}, not supported")
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
        raise InternalError(f"The output {name!r} has a form that this client does not read")
    values = list(getattr(proto, _VALUE_FIELDS[dtype]))
    if dtype == "string":
        values = [decode_text(content) for content in values]
    return Tensor(dtype, tuple(dim.size for dim in proto.tensor_shape.dim), values)


def _tensor_specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _tensor_spec(info) for name, info in infos.items()}


def _tensor_spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    sizes = tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)
    dtype = DTYPE_NAMES.get(info.dtype, str(info.dtype))
    return TensorSpec(dtype, None if shape.unknown_rank else sizes)
