"""Requests and responses of the TensorFlow Serving API as protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.clients import messages_pb2
from serving.clients.answer import Prediction
from serving.clients.model import (
    ModelChoice,
    ModelMetadata,
    SignatureSpec,
    Tensor,
    TensorSpec,
    VersionStatus,
    decode_text,
    encode_text,
)
from serving.clients.retry import Exchange
from serving.errors import InternalError, InvalidArgumentError, code_name

Message = Any
"""A message of `messages_pb2`."""

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD_CONFIG = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"

METHODS: dict[str, tuple[Any, Any]] = {
    PREDICT: (messages_pb2.PredictRequest, messages_pb2.PredictResponse),
    GET_MODEL_METADATA: (
        messages_pb2.GetModelMetadataRequest,
        messages_pb2.GetModelMetadataResponse,
    ),
    GET_MODEL_STATUS: (messages_pb2.GetModelStatusRequest, messages_pb2.GetModelStatusResponse),
    RELOAD_CONFIG: (messages_pb2.ReloadConfigRequest, messages_pb2.ReloadConfigResponse),
}
"""The classes of request and response by the path of the method."""

_SIGNATURE_DEF = "signature_def"
_VALUE_FIELDS = {
    "float": "float_val",
    "double": "double_val",
    "int32": "int_val",
    "string": "string_val",
    "int64": "int64_val",
    "bool": "bool_val",
}


class GrpcProtocol:
    """Builder of gRPC requests for one model, and parser of their responses."""

    def __init__(self, model: ModelChoice) -> None:
        self._model = model

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor]
    ) -> Exchange[Prediction]:
        """Build the request that runs a signature."""
        request = messages_pb2.PredictRequest(model_spec=_model_spec(self._model, signature.name))
        for name, tensor in inputs.items():
            _encode(name, tensor, request.inputs[name])
        return Exchange(request, _read_prediction)

    def metadata(self) -> Exchange[ModelMetadata]:
        """Build the request for the model's signatures."""
        request = messages_pb2.GetModelMetadataRequest(
            model_spec=_model_spec(self._model), metadata_field=[_SIGNATURE_DEF]
        )
        return Exchange(request, _read_metadata)

    def status(self) -> Exchange[list[VersionStatus]]:
        """Build the request for the states of the model's versions."""
        request = messages_pb2.GetModelStatusRequest(model_spec=_model_spec(self._model))
        return Exchange(request, read_status)


def _model_spec(model: ModelChoice, signature_name: str = "") -> Message:
    spec = messages_pb2.ModelSpec(name=model.name, signature_name=signature_name)
    if model.version is not None:
        spec.version.value = model.version
    if model.label is not None:
        spec.version_label = model.label
    return spec


def _read_prediction(response: Message) -> Prediction:
    outputs = {name: _decode(name, proto) for name, proto in response.outputs.items()}
    return Prediction(outputs, response.model_spec.version.value)


def _read_metadata(response: Message) -> ModelMetadata:
    packed = response.metadata[_SIGNATURE_DEF].value
    definitions = messages_pb2.SignatureDefMap.FromString(packed)
    return ModelMetadata(response.model_spec.version.value, read_signatures(definitions))


def read_signatures(definitions: Message) -> dict[str, SignatureSpec]:
    """Return the signatures in a `SignatureDefMap` by name."""
    return {
        name: SignatureSpec(
            name, _tensor_specs(definition.inputs), _tensor_specs(definition.outputs)
        )
        for name, definition in definitions.signature_def.items()
    }


def read_status(response: Message) -> list[VersionStatus]:
    """Return the states of the versions in a `GetModelStatusResponse`."""
    return [
        VersionStatus(
            row.version,
            _name(messages_pb2.ModelVersionStatus.State, row.state),
            code_name(row.status.error_code),
            row.status.error_message,
        )
        for row in response.model_version_status
    ]


def _name(enum: Any, number: int) -> str:
    return str(enum.Name(number)) if number in enum.values() else str(number)


def _dtype_name(number: int) -> str:
    return _name(messages_pb2.DataType, number).removeprefix("DT_").lower()


def _tensor_specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            _dtype_name(info.dtype),
            None
            if info.tensor_shape.unknown_rank
            else tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim),
        )
        for name, info in infos.items()
    }


def _encode(name: str, tensor: Tensor, proto: Message) -> None:
    if tensor.dtype not in _VALUE_FIELDS:
        raise InvalidArgumentError(
            f"The input {name!r} must have one of the types {', '.join(_VALUE_FIELDS)}, "
            f"got {tensor.dtype}"
        )
    proto.dtype = messages_pb2.DataType.Value(f"DT_{tensor.dtype.upper()}")
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    values: Sequence[Any] = tensor.values
    if tensor.dtype == "string":
        values = [encode_text(text) for text in values]
    getattr(proto, _VALUE_FIELDS[tensor.dtype]).extend(values)


def _decode(name: str, proto: Message) -> Tensor:
    dtype = _dtype_name(proto.dtype)
    if dtype not in _VALUE_FIELDS or proto.tensor_content:
        raise InternalError(f"The client cannot read the encoding of the output {name!r}")
    values = list(getattr(proto, _VALUE_FIELDS[dtype]))
    if dtype == "string":
        values = [decode_text(content) for content in values]
    return Tensor(dtype, tuple(dim.size for dim in proto.tensor_shape.dim), values)
