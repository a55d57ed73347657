"""Calls of the gRPC API, and how they must fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

ALL_INPUTS = "age,country,history,title,user_id"


class Stubs:
    def __init__(self, channel: grpc.Channel) -> None:
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(self, name: str = "retrieval", **options: Any) -> Any:
        return self.prediction.Predict(predict_request(name, **options), timeout=10)


def predict_request(
    name: str = "retrieval",
    *,
    signature: str = "",
    version: int | None = None,
    label: str = "",
    output_filter: list[str] | None = None,
    **inputs: Any,
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=output_filter or [])
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for alias, value in inputs.items():
        proto = value if hasattr(value, "dtype") and hasattr(value, "tensor_shape") else None
        request.inputs[alias].CopyFrom(proto or tf.make_tensor_proto(value))
    return request


def check_error(call: Callable[[], Any], code: str, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code().name == code
    assert text in caught.value.details()
