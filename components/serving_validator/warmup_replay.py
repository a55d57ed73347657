"""Asks a server what the export's own warm-up requests ask, and compares with the model in process.

They are real requests to every signature, with filters and without
(`components.index_builder.saved_retrieval_model`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from serving.errors import from_grpc_code

_WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")

Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Replay:
    """A warm-up request and what the model in process answers."""

    request: Any
    expected: Outputs


def replay_in_process(model_path: str, signatures: Mapping[str, Any]) -> list[Replay]:
    """Asks the loaded model its warm-up requests.

    Args:
        model_path: The SavedModel; one without warm-up requests gives none.
        signatures: Of the same, loaded.
    """
    replays = []
    for request in _requests(model_path):
        inputs = {
            name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()
        }
        answer = signatures[request.model_spec.signature_name](**inputs)
        expected = {name: values.numpy() for name, values in answer.items()}
        replays.append(Replay(request, expected))
    return replays


def replay_on_server(
    replays: Sequence[Replay], target: str, model_name: str, timeout_s: float, tolerance: float
) -> list[str]:
    """Returns which requests the server answers otherwise, nothing if none.

    Args:
        replays: Requests and answers.
        target: gRPC address.
        model_name: As served.
        timeout_s: For one answer.
        tolerance: Of numbers, relative and absolute.

    Raises:
        ServingError: As the server or the connection reports it.
    """
    problems = []
    with grpc.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for place, replay in enumerate(replays):
            request = predict_pb2.PredictRequest()
            request.CopyFrom(replay.request)
            request.model_spec.name = model_name
            try:
                response = stub.Predict(request, timeout=timeout_s)
            except grpc.RpcError as error:
                raise from_grpc_code(error.code().value[0], error.details() or "") from error
            actual = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
            different = _different_outputs(actual, replay.expected, tolerance)
            if different:
                problems.append(
                    f"warm-up request {place} to {request.model_spec.signature_name}: the server's "
                    f"{', '.join(different)} differ from the model's"
                )
    return problems


def _requests(model_path: str) -> Iterator[Any]:
    path = os.path.join(model_path, _WARMUP_FILE)
    if not tf.io.gfile.exists(path):
        return
    for record in tf.data.TFRecordDataset(path):
        yield prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request


def _different_outputs(actual: Outputs, expected: Outputs, tolerance: float) -> list[str]:
    if set(actual) != set(expected):
        return sorted(set(actual) ^ set(expected))
    return [
        name
        for name, values in sorted(expected.items())
        if actual[name].shape != values.shape or not _is_close(actual[name], values, tolerance)
    ]


def _is_close(actual: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float) -> bool:
    if expected.dtype.kind == "f":
        return np.allclose(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    # Ids whose scores are equal may change places, also with the first that is left out.
    pairs = zip(expected.tolist(), actual.tolist(), strict=True)
    return all(len(set(wanted) - set(given)) <= 1 for wanted, given in pairs)
