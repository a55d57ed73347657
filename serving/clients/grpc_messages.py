"""Requests and answers in the form of the gRPC API, for any kind of channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.clients import wire
from serving.clients.model_choice import ModelChoice
from serving.clients.model_metadata import (
    DTYPE_NAMES,
    ModelMetadata,
    SignatureSpec,
    TensorSpec,
    VersionStatus,
)
from serving.clients.tensor import Tensor, decode_text, encode_text
from serving.clients.transport import Prediction
from serving.errors import InternalError, InvalidArgumentError, code_name

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


def predict_request(
    model: ModelChoice, signature_name: str, inputs: Mapping[str, Tensor]
) -> wire.Message:
    """Return a PredictRequest.

    Raises:
        InvalidArgumentError: If an input has a type that requests cannot carry.
    """
    request = wire.PredictRequest(model_spec=_model_spec(model, signature_name))
    for name, tensor in inputs.items():
        _encode(name, tensor, request.inputs[name])
    return request


def metadata_request(model: ModelChoice) -> wire.Message:
    """Return a GetModelMetadataRequest for the signatures."""
    return wire.GetModelMetadataRequest(
        model_spec=_model_spec(model), metadata_field=[_SIGNATURE_DEF]
    )


def status_request(model: ModelChoice) -> wire.Message:
    """Return a GetModelStatusRequest."""
    return wire.GetModelStatusRequest(model_spec=_model_spec(model))


def read_prediction(response: wire.Message) -> Prediction:
    """Return what a PredictResponse says.

    Raises:
        InternalError: If an output has a form that is not read here.
    """
    outputs = {name: _decode(name, proto) for name, proto in response.outputs.items()}
    return Prediction(outputs, response.model_spec.version.value)


def read_metadata(response: wire.Message) -> ModelMetadata:
    """Return what a GetModelMetadataResponse says."""
    packed = response.metadata[_SIGNATURE_DEF].value
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


def read_status(response: wire.Message) -> list[VersionStatus]:
    """Return what a GetModelStatusResponse says."""
    return [
        VersionStatus(
            row.version,
            _STATES.get(row.state, str(row.state)),
            code_name(row.status.error_code),
            row.status.error_message,
        )
        for row in response.model_version_status
    ]


def _model_spec(model: ModelChoice, signature_name: str = "") -> wire.Message:
    spec = wire.ModelSpec(name=model.name, signature_name=signature_name)
    if model.version is not None:
        spec.version.value = model.version
    if model.label is not None:
        spec.version_label = model.label
    return spec


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
