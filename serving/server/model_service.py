"""What both front ends stand on: the models, the batcher, and the API's smaller methods.

An answer over REST is an answer over gRPC in other clothes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from serving.errors import InvalidArgumentError
from serving.server import event_log
from serving.server.batching import Batcher
from serving.server.loaded_model import LoadedModel
from serving.server.metrics import Metrics
from serving.server.model_manager import ModelManager

SIGNATURE_DEF_FIELD = "signature_def"


class ModelService:
    """TensorFlow Serving's methods over models.

    Args:
        manager: Finds the version that a request means.
        batcher: Runs it.
        metrics: What is counted and timed.
    """

    def __init__(self, manager: ModelManager, batcher: Batcher, metrics: Metrics) -> None:
        self.manager = manager
        self.batcher = batcher
        self.metrics = metrics

    def use(self, request: predict_pb2.PredictRequest) -> LoadedModel:
        """Return the version that a request means, held until it is released by a `with` block.

        Raises:
            ServingError: With TensorFlow Serving's code and text.
        """
        if not request.HasField("model_spec"):
            raise InvalidArgumentError("Missing ModelSpec")
        return self.manager.use(request.model_spec)

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

    async def reload_config(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Take over a list of models as a whole; return once new models are available.

        Raises:
            ServingError: With TensorFlow Serving's code and text.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidArgumentError(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported"
            )
        event_log.info(
            "config_reloaded", models=",".join(_names(request.config.model_config_list.config))
        )
        before = {name: self.metrics.counter_value(name) for name in request.metric_names}
        await self.manager.wait_until_available(self.manager.configure(request.config))
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        for name, value in before.items():
            increase = self.metrics.counter_value(name) - value
            response.metric.add(name=name, int64_value_increase=increase)
        return response


def _names(configs: Iterable[Any]) -> list[str]:
    return [config.name for config in configs]
