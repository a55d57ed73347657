"""The Predict call: a request in, a response out, whatever the front end."""

from __future__ import annotations

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving import errors
from serving.model_server.loaded_model import LoadedModel
from serving.model_server.signature import DEFAULT_SIGNATURE, Signature, find_signature
from serving.model_server.tensor_codec import Array, encode


def predict(model: LoadedModel, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Answer a PredictRequest with a given version.

    Args:
        model: The version; `request.model_spec` is not resolved here.
        request: Tensors by input name, and the outputs wanted (none: all).

    Raises:
        errors.ServingError: With the code and text that TensorFlow Serving has for the case.
    """
    spec = request.model_spec
    signature = find_signature(model.signatures, spec.signature_name)
    arrays = signature.decode_inputs(request.inputs)
    outputs = signature.select_outputs(request.output_filter)
    results = run(signature, arrays, outputs)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = spec.name
    response.model_spec.signature_name = spec.signature_name or DEFAULT_SIGNATURE
    response.model_spec.version.value = model.version
    for alias, array in results.items():
        encode(array, response.outputs[alias])
    return response


def run(
    signature: Signature, arrays: dict[str, Array], outputs: tuple[str, ...]
) -> dict[str, Array]:
    """Run a signature, with TensorFlow's errors turned into this project's.

    Request batching belongs here: what comes in is checked, and one result leaves for each call.

    Raises:
        errors.ServingError: With the code and text of TensorFlow's error.
    """
    try:
        return signature.run(arrays, outputs)
    except tf.errors.OpError as error:
        raise errors.from_grpc_code(error.error_code, error.message) from error
