"""Warm-up of a loaded model with the requests in its version folder.

A ScaNN index builds its searcher at the first call, which takes 0.1 s with 100,000 candidates and
0.6 s with a million. With warm-up, the first user request does not have to wait for this.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.errors import InvalidArgumentError, UnimplementedError
from serving.server.loaded_model import LoadedModel
from serving.server.signature import find_signature

REQUESTS_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def replay(model: LoadedModel, path: Path) -> int:
    """Run the warm-up requests in a version folder, and return their number.

    Raises:
        InvalidArgumentError: If a record cannot be parsed, or there are more than `MAX_RECORDS`.
        UnimplementedError: If a record is not a Predict request.
        ServingError: If a request fails.
    """
    file = path / REQUESTS_FILE
    if not file.exists():
        return 0
    replayed = 0
    for record in tf.compat.v1.io.tf_record_iterator(str(file)):
        if replayed == MAX_RECORDS:
            raise InvalidArgumentError(
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}"
            )
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError as error:
            raise InvalidArgumentError(
                f"Failed to parse warmup record: number {replayed} from {file}"
            ) from error
        kind = log.WhichOneof("log_type")
        if kind != "predict_log":
            raise UnimplementedError(f"Unsupported log_type for warmup: {kind}")
        request = log.predict_log.request
        signature = find_signature(model.signatures, request.model_spec.signature_name)
        feeds = signature.feeds_from_protos(request.inputs)
        signature.compute(feeds, signature.select_outputs(request.output_filter))
        replayed += 1
    return replayed
