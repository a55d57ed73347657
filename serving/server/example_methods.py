"""Classify, Regress and MultiInference: what they refuse, in the words of TensorFlow Serving.

They feed serialized tf.Examples to one input called `inputs`. A retrieval model has no such
signature, so every call ends with one of these errors. A model that has one is told so.

References:
    classifier.cc, regressor.cc and multi_inference.cc in tensorflow_serving/servables/tensorflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import text_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import inference_pb2, model_pb2

from serving.errors import InvalidArgumentError, ServingError, UnimplementedError
from serving.server.model_manager import ModelManager
from serving.server.signature import DEFAULT_SIGNATURE

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"
_INPUT = "inputs"
_CLASSES, _SCORES, _REGRESSION = "classes", "scores", "outputs"

SignatureDefs = Mapping[str, meta_graph_pb2.SignatureDef]


def refuse_classify(manager: ModelManager, request: Any) -> ServingError:
    """Return why a ClassificationRequest is not answered."""
    return _refuse(manager, request, _check_classification, "Classify")


def refuse_regress(manager: ModelManager, request: Any) -> ServingError:
    """Return why a RegressionRequest is not answered."""
    return _refuse(manager, request, _check_regression, "Regress")


def refuse_multi_inference(
    manager: ModelManager, request: inference_pb2.MultiInferenceRequest
) -> ServingError:
    """Return why a MultiInferenceRequest is not answered."""
    tasks = request.tasks
    spec = tasks[0].model_spec if tasks else model_pb2.ModelSpec()
    try:
        with manager.use(spec) as model:
            _check_tasks(tasks, model.signature_defs)
    except ServingError as error:
        return error
    return _not_offered("MultiInference")


def _refuse(manager: ModelManager, request: Any, check: Any, method: str) -> ServingError:
    if not request.HasField("model_spec"):
        return InvalidArgumentError("Missing ModelSpec")
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    try:
        with manager.use(request.model_spec) as model:
            if name not in model.signature_defs:
                return InvalidArgumentError(f"No signature was found with the name: {name}")
            check(model.signature_defs[name])
    except ServingError as error:
        return error
    return _not_offered(method)


def _not_offered(method: str) -> ServingError:
    return UnimplementedError(f"{method} is not offered; use Predict")


def _check_tasks(tasks: Any, signatures: SignatureDefs) -> None:
    seen: set[str] = set()
    for task in tasks:
        if not task.model_spec.name:
            raise InvalidArgumentError("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise InvalidArgumentError(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise InvalidArgumentError(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        if name not in signatures:
            raise InvalidArgumentError(f"Requested signature not found in model graph: {name}")
        if task.method_name == CLASSIFY_METHOD:
            _check_classification(signatures[name])
        elif task.method_name == REGRESS_METHOD:
            _check_regression(signatures[name])
        else:
            raise UnimplementedError(f"Unsupported signature method_name: {task.method_name}")


def _check_classification(definition: meta_graph_pb2.SignatureDef) -> None:
    if len(definition.inputs) != 1:
        raise InvalidArgumentError("Expected one input Tensor.")
    if len(definition.outputs) not in (1, 2):
        raise InvalidArgumentError(
            f"Expected one or two output Tensors, found {len(definition.outputs)}"
        )
    if _INPUT not in definition.inputs:
        raise InvalidArgumentError(
            f"No classification inputs found in SignatureDef: {_debug_string(definition)}"
        )
    if _CLASSES not in definition.outputs and _SCORES not in definition.outputs:
        raise InvalidArgumentError(
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {_debug_string(definition)}'
        )


def _check_regression(definition: meta_graph_pb2.SignatureDef) -> None:
    if len(definition.inputs) != 1:
        raise InvalidArgumentError("Expected one input Tensor.")
    if len(definition.outputs) != 1:
        raise InvalidArgumentError("Expected one output Tensor.")
    if _INPUT not in definition.inputs:
        raise InvalidArgumentError(
            f"No regression inputs found in SignatureDef: {_debug_string(definition)}"
        )
    if _REGRESSION not in definition.outputs:
        raise InvalidArgumentError(
            f"No regression outputs found in SignatureDef: {_debug_string(definition)}"
        )


def _debug_string(definition: meta_graph_pb2.SignatureDef) -> str:
    text: str = text_format.MessageToString(definition)
    return text
