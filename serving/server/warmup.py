"""Replays the requests that a model brings along for its own warm-up.

A ScaNN index builds its searcher at the first call (0.1 s with 100,000 candidates, 0.6 s with a
million); the warm-up keeps that from the first user.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.errors import InvalidArgumentError, UnimplementedError
from serving.server.loaded_model import LoadedModel
from serving.server.predict import predict

REQUESTS_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def replay(model: LoadedModel, path: Path) -> int:
    """Run the model's warm-up requests; a failing one fails the version, as in TensorFlow Serving.

    Args:
        model: The loaded version.
        path: Its folder.

    Returns:
        The number of requests replayed; 0 if the model brings none.

    Raises:
        InvalidArgumentError: If a record cannot be parsed, fails, or there are more than 1,000.
        UnimplementedError: If a record is not a Predict request.
    """
    file = path / REQUESTS_FILE
    if not file.exists():
        return 0
    replayed = 0
    for record in tf.compat.v1.io.tf_record_iterator(str(file)):
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError as error:
            raise InvalidArgumentError(
                f"Failed to parse warmup record: number {replayed} from {file}"
            ) from error
        kind = log.WhichOneof("log_type")
        if kind != "predict_log":
            raise UnimplementedError(f"Unsupported log_type for warmup: {kind}")
        predict(model, log.predict_log.request)
        replayed += 1
        if replayed > MAX_RECORDS:
            raise InvalidArgumentError(
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}"
            )
    return replayed
