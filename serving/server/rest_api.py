"""The REST API's routes: a method, a path and a body in; a status and a body out.

Paths, texts and codes are those of TensorFlow Serving r2.16
(model_servers/http_rest_api_handler.cc, http_rest_api_util.cc and http_server.cc).
"""

from __future__ import annotations

import dataclasses
import http
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.errors import (
    InternalError,
    InvalidArgumentError,
    ServingError,
)
from serving.server import event_log, rest_proto_json
from serving.server.example_methods import refuse_classify, refuse_regress
from serving.server.json_writer import write_json
from serving.server.model_manager import ModelManager
from serving.server.model_service import SIGNATURE_DEF_FIELD, ModelService
from serving.server.rest_examples import signature_name_of
from serving.server.rest_predict import predict_json
from serving.server.version_folders import MAX_VERSION

_API_PATH = re.compile(r"/v1/.*", re.IGNORECASE)
_VERSION = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_PREDICTION_PATH = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_MODEL_PATH = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<resource>metadata))?",
    re.IGNORECASE | re.ASCII,
)

_REFUSALS: dict[str, tuple[Any, Callable[[ModelManager, Any], ServingError]]] = {
    "classify": (classification_pb2.ClassificationRequest, refuse_classify),
    "regress": (regression_pb2.RegressionRequest, refuse_regress),
}


@dataclasses.dataclass(frozen=True)
class HttpAnswer:
    """What goes back to the client."""

    status: int
    body: bytes
    content_type: str = "application/json"
    closes_connection: bool = False


class RestApi:
    """Answers REST requests.

    Args:
        service: Answers the calls.
        timeout_s: After this long a request is answered with 504.
        metrics_path: Of the Prometheus page; None offers none.
    """

    def __init__(
        self, service: ModelService, timeout_s: float, metrics_path: str | None = None
    ) -> None:
        self._service = service
        self._timeout_s = timeout_s
        self._metrics_path = metrics_path

    def answer(self, http_method: str, path: str, body: bytes) -> HttpAnswer:
        """Answer one request; errors become answers too."""
        if path == self._metrics_path:
            return HttpAnswer(200, self._service.metrics.page(), "text/plain")
        if not _API_PATH.fullmatch(path):
            return _not_found_page()
        metrics = self._service.metrics
        match = self._match(http_method, path)
        name = unquote(match["name"] or "") if match else ""
        started_s = time.monotonic()
        try:
            content = self._route(http_method, path, match, body)
        except ServingError as raised:
            error: ServingError = raised
        except Exception as raised:
            event_log.error("request_crashed", error=repr(raised))
            error = InternalError(f"{type(raised).__name__}: {raised}")
        else:
            method = match.groupdict().get("method") if match else None
            elapsed_us = (time.monotonic() - started_s) * 1e6
            metrics.request_latency.add(elapsed_us, name, method or "", "REST")
            metrics.request_count.add(name, "OK")
            return HttpAnswer(200, content)
        metrics.request_count.add(name, error.code_name())
        return HttpAnswer(error.http_status, write_json({"error": error.message}))

    def _match(self, http_method: str, path: str) -> re.Match[str] | None:
        pattern = {"POST": _PREDICTION_PATH, "GET": _MODEL_PATH}.get(http_method)
        return pattern.fullmatch(path) if pattern else None

    def _route(
        self, http_method: str, path: str, match: re.Match[str] | None, body: bytes
    ) -> bytes:
        malformed = InvalidArgumentError(f"Malformed request: {http_method} {path}")
        if match is None:
            raise malformed
        spec = _model_spec(match)
        if http_method == "POST":
            # The pattern ignores case, the dispatch does not: ":PREDICT" is malformed.
            if match["method"] == "predict":
                return predict_json(self._service, spec, body, self._timeout_s)
            if match["method"] in _REFUSALS:
                raise self._refusal(match["method"], spec, body)
            raise malformed
        if not spec.name:
            raise InvalidArgumentError("Missing model name in request.")
        if match["resource"] == "metadata":
            return self._metadata(spec)
        return self._status(spec)

    def _refusal(self, method: str, spec: model_pb2.ModelSpec, body: bytes) -> ServingError:
        request_class, refuse = _REFUSALS[method]
        spec.signature_name = signature_name_of(body)
        return refuse(self._service.manager, request_class(model_spec=spec))

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return rest_proto_json.status_json(self._service.get_model_status(request))

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[SIGNATURE_DEF_FIELD]
        )
        return rest_proto_json.metadata_json(self._service.get_model_metadata(request))


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["name"] or ""))
    if match["version"]:
        version = int(match["version"])
        if version > MAX_VERSION:
            raise InvalidArgumentError(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = version
    elif match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _not_found_page() -> HttpAnswer:
    """Return libevent's own error page, which answers paths outside of /v1/."""
    status = http.HTTPStatus.NOT_FOUND
    page = (
        f"<HTML><HEAD>\n<TITLE>{status.value} {status.phrase}</TITLE>\n</HEAD><BODY>\n"
        f"<H1>{status.phrase}</H1>\n</BODY></HTML>\n"
    )
    return HttpAnswer(status, page.encode(), "text/html; charset=ISO-8859-1", True)
