"""What a front end calls: the API's methods as plain functions from request to response.

Both front ends hold one of these, so an answer over REST is an answer over gRPC in other clothes.
"""

from __future__ import annotations

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from serving.errors import InvalidArgumentError
from serving.model_server.model_manager import ModelManager
from serving.model_server.predict import predict

SIGNATURE_DEF_FIELD = "signature_def"


class ModelService:
    """TensorFlow Serving's methods over a `ModelManager`."""

    def __init__(self, manager: ModelManager) -> None:
        self.manager = manager

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Run a signature.

        Raises:
            ServingError: With TensorFlow Serving's code and text.
        """
        if not request.HasField("model_spec"):
            raise InvalidArgumentError("Missing ModelSpec")
        with self.manager.use(request.model_spec) as model:
            return predict(model, request)

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Describe a version's signatures.

        Raises:
            ServingError: With TensorFlow Serving's code and text.
        """
        if not request.HasField("model_spec"):
            raise InvalidArgumentError("Missing ModelSpec")
        if not request.metadata_field:
            raise InvalidArgumentError(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF_FIELD:
                raise InvalidArgumentError(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self.manager.use(request.model_spec) as model:
            for name, definition in model.signature_defs.items():
                signatures.signature_def[name].CopyFrom(definition)
            response.model_spec.name = request.model_spec.name
            response.model_spec.version.value = model.version
        response.metadata[SIGNATURE_DEF_FIELD].Pack(signatures)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Tell the state of one version, or of all.

        Raises:
            ServingError: With TensorFlow Serving's code and text.
        """
        if not request.HasField("model_spec"):
            raise InvalidArgumentError("Missing ModelSpec")
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self.manager.statuses(request.model_spec):
            row = response.model_version_status.add()
            row.version = status.version
            row.state = int(status.state)
            # Set also for OK, or the field would be absent where TensorFlow Serving prints it.
            row.status.error_code = status.error.grpc_code if status.error else 0
            row.status.error_message = status.error.message if status.error else ""
        return response
