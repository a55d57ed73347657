from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import model_management_pb2, regression_pb2

from serving.errors import UnimplementedError
from serving.server.metrics import Metrics
from serving.server.model_service import ModelService


class Manager:
    """Counts two requests while it waits for new models."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def configure(self, config: Any) -> set[str]:
        return {"m"}

    async def wait_until_available(self, names: set[str]) -> None:
        assert names == {"m"}
        for _ in range(2):
            self._metrics.request_count.add("m", "OK")


def test_a_reload_reports_how_much_the_named_metrics_grew() -> None:
    metrics = Metrics()
    metrics.request_count.add("m", "OK")
    manager: Any = Manager(metrics)
    batcher: Any = None
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="m")
    request.metric_names.extend(["/tensorflow/serving/request_count", "/no/such/metric"])
    response = asyncio.run(ModelService(manager, batcher, metrics).reload_config(request))
    assert {metric.name: metric.int64_value_increase for metric in response.metric} == {
        "/tensorflow/serving/request_count": 2,
        "/no/such/metric": 0,
    }
    assert response.status.error_code == 0


def test_a_signature_for_examples_is_not_supported() -> None:
    class OneModel:
        def use(self, spec: Any) -> Any:
            definition = meta_graph_pb2.SignatureDef(inputs={"inputs": meta_graph_pb2.TensorInfo()})
            model = SimpleNamespace(signature_defs={"serving_default": definition})
            return contextlib.nullcontext(model)

    nothing: Any = None
    manager: Any = OneModel()
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "m"
    error = ModelService(manager, nothing, Metrics()).refusal("Regress", request)
    assert isinstance(error, UnimplementedError)
