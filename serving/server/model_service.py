"""The API methods behind gRPC and REST: Predict, metadata, status, reload and rejected methods."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
)

from serving.errors import InvalidArgumentError
from serving.server import event_log
from serving.server.batching import Batcher
from serving.server.metrics import Metrics
from serving.server.model_manager import ModelManager
from serving.server.predict import Signature, find_signature
from serving.server.request_log import RequestLog
from serving.server.tensor_codec import Array

SIGNATURE_DEF_FIELD = "signature_def"

Prepare = Callable[[Signature], tuple[list[Array], tuple[str, ...]]]


class ModelService:
    """Implementation of TensorFlow Serving's API methods."""

    def __init__(
        self,
        manager: ModelManager,
        batcher: Batcher,
        metrics: Metrics,
        request_log: RequestLog | None = None,
    ) -> None:
        self.manager = manager
        self.metrics = metrics
        self._batcher = batcher
        self._request_log = request_log

    async def predict(
        self, spec: model_pb2.ModelSpec, prepare: Prepare, deadline_s: float | None
    ) -> tuple[int, tuple[str, ...], list[Array]]:
        """Run a signature; return the version, the names of the outputs, and their arrays.

        `prepare` returns the feeds of a signature and the names of the outputs. `deadline_s` is a
        time of `time.monotonic`, or None.

        Raises:
            ServingError: If the request is invalid or the computation fails.
        """
        with self.manager.use(spec) as model:
            signature = find_signature(model.signatures, spec.signature_name)
            feeds, outputs = prepare(signature)
            started_s = time.monotonic()
            results = await self._batcher.run(signature, feeds, outputs, deadline_s)
            elapsed_us = (time.monotonic() - started_s) * 1e6
            self.metrics.runtime_latency.add(elapsed_us, spec.name, "Predict", "TF1")
            if self._request_log is not None:
                answer = dict(zip(outputs, results, strict=True))
                self._request_log.add(spec, model.version, signature, feeds, answer)
            return model.version, outputs, results

    async def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures of a version."""
        check_has_model_spec(request)
        if not request.metadata_field:
            raise InvalidArgumentError(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF_FIELD:
                raise InvalidArgumentError(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        with self.manager.use(request.model_spec) as model:
            response.model_spec.version.value = model.version
            definitions = model.signature_defs
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=definitions)
        response.metadata[SIGNATURE_DEF_FIELD].Pack(signatures)
        return response

    async def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the state of one version, or of all versions of a model."""
        check_has_model_spec(request)
        statuses = self.manager.statuses(request.model_spec)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    async def reload_config(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replace the list of served models, and wait until new models are available."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidArgumentError(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported"
            )
        names = [config.name for config in request.config.model_config_list.config]
        event_log.info("config_reloaded", models=",".join(names))
        new = self.manager.configure(request.config)
        await self.manager.wait_until_settled(new, waits_for_files=False)
        return model_management_pb2.ReloadConfigResponse(status={"error_code": 0})

    async def refuse(self, method: str, request: object = None) -> NoReturn:
        """Reject Classify, Regress or MultiInference, which need a signature for tf.Examples."""
        raise InvalidArgumentError(f"{method} needs a signature for tf.Examples; use Predict")


def check_has_model_spec(request: Any) -> None:
    """Check that a request has a ModelSpec."""
    if not request.HasField("model_spec"):
        raise InvalidArgumentError("Missing ModelSpec")
