"""The Predict call: what a request asks for, and the answer as bytes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tensorflow_serving.apis import model_pb2, predict_pb2

from serving.server.batching import Call
from serving.server.loaded_model import LoadedModel
from serving.server.signature import DEFAULT_SIGNATURE, find_signature
from serving.server.tensor_codec import Array, delimited, wire_bytes

# Fields of PredictResponse and of an entry of its map on the wire.
_OUTPUTS_TAG = b"\x0a"
_MODEL_SPEC_TAG = b"\x12"
_KEY_TAG = b"\x0a"
_VALUE_TAG = b"\x12"


def prepare(
    model: LoadedModel, request: predict_pb2.PredictRequest, deadline_s: float | None = None
) -> Call:
    """Check a request against a version.

    Args:
        model: The version; `request.model_spec` is not resolved here.
        request: Tensors by input name, and the outputs wanted (none: all).
        deadline_s: On `time.monotonic()`'s clock.

    Returns:
        What is to be run.

    Raises:
        ServingError: With the code and text that TensorFlow Serving has for the case.
    """
    signature = find_signature(model.signatures, request.model_spec.signature_name)
    arrays = signature.decode_inputs(request.inputs)
    outputs = signature.select_outputs(request.output_filter)
    return Call(signature, signature.order_feeds(arrays), outputs, deadline_s)


def respond(
    spec: model_pb2.ModelSpec, version: int, outputs: Sequence[str], results: Sequence[Array]
) -> bytes:
    """Return a serialized PredictResponse.

    Args:
        spec: Of the request.
        version: That answered.
        outputs: The names of the results.
        results: One array for each output.

    Raises:
        UnimplementedError: If a result has a dtype without an encoding.
    """
    parts = [_model_spec(spec.name, spec.signature_name or DEFAULT_SIGNATURE, version)]
    for alias, array in zip(outputs, results, strict=True):
        entry = _key(alias) + delimited(_VALUE_TAG, wire_bytes(array))
        parts.append(delimited(_OUTPUTS_TAG, entry))
    return b"".join(parts)


def predict(model: LoadedModel, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Answer a PredictRequest with a given version, here and now.

    Raises:
        ServingError: With the code and text that TensorFlow Serving has for the case.
    """
    call = prepare(model, request)
    results = call.signature.compute(call.feeds, call.outputs)
    return predict_pb2.PredictResponse.FromString(
        respond(request.model_spec, model.version, call.outputs, results)
    )


@functools.lru_cache(maxsize=256)
def _model_spec(name: str, signature_name: str, version: int) -> bytes:
    spec = model_pb2.ModelSpec(name=name, signature_name=signature_name)
    spec.version.value = version
    return delimited(_MODEL_SPEC_TAG, spec.SerializeToString())


@functools.lru_cache(maxsize=256)
def _key(alias: str) -> bytes:
    return delimited(_KEY_TAG, alias.encode())
