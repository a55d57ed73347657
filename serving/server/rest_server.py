"""The REST server, with the paths, methods and status codes of TensorFlow Serving.

Each class of `serving.errors` has the HTTP status of its answers. The server uses aiohttp, and
shares the event loop and the batcher with the gRPC server.

References:
    model_servers/http_rest_api_handler.cc and http_rest_api_util.cc of TensorFlow Serving.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import zlib
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from serving.errors import InvalidArgumentError, ServingError
from serving.server.batching import timed_out
from serving.server.flags import ServerFlags, bound_socket
from serving.server.model_service import SIGNATURE_DEF_FIELD, ModelService
from serving.server.predict import as_serving_error
from serving.server.rest_predict import predict_json, write_json
from serving.server.version_folders import MAX_VERSION

# Paths are case-insensitive and methods are case-sensitive, as in TensorFlow Serving.
_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION_PATH = re.compile(
    rf"(?i:/v1/models/(?P<name>[^/:]+){_VERSION}):(?P<method>classify|regress|predict)", re.ASCII
)
_MODEL_PATH = re.compile(
    rf"(?i:/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?)", re.ASCII
)


class RestServer:
    """The REST server. It binds its port when it is created and answers requests after `start`."""

    def __init__(self, service: ModelService, flags: ServerFlags, metrics_path: str | None) -> None:
        self._service = service
        self._timeout_s = flags.rest_api_timeout_in_ms / 1000
        self._max_request_bytes = flags.max_request_bytes
        self._metrics_path = metrics_path
        self._socket = bound_socket("--rest_api_port", flags.bind_address, flags.rest_api_port)
        self.port: int = self._socket.getsockname()[1]
        app = web.Application(client_max_size=flags.max_request_bytes)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # Otherwise each malformed request would log a traceback.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        # `_read_body` decompresses bodies, because aiohttp accepts truncated gzip bodies.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            shutdown_timeout=flags.shutdown_grace_seconds,
        )

    async def start(self) -> None:
        """Start to listen and to answer requests."""
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def stop(self) -> None:
        """Reject new connections and wait for the running requests."""
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        metrics = self._service.metrics
        if path == self._metrics_path:
            return web.Response(body=metrics.page(), content_type="text/plain")
        if not path.lower().startswith("/v1/"):
            return _error(404, f"Not found: {path}")
        pattern = {"POST": _PREDICTION_PATH, "GET": _MODEL_PATH}.get(request.method)
        match = pattern.fullmatch(path) if pattern else None
        name = unquote(match["name"] or "") if match else ""
        started_s = time.monotonic()
        try:
            body = await self._read_body(request)
            if match is None:
                raise InvalidArgumentError(f"Malformed request: {request.method} {path}")
            content = await asyncio.wait_for(
                self._route(request.method, match, name, body), self._timeout_s
            )
        except asyncio.TimeoutError:
            error: ServingError = timed_out()
        except _BodyError as refused:
            return _error(refused.status, str(refused))
        except Exception as raised:  # Every request must get an answer.
            error = as_serving_error(raised)
        else:
            elapsed_us = (time.monotonic() - started_s) * 1e6
            method = match.groupdict().get("method") or ""
            metrics.request_latency.add(elapsed_us, name, method, "REST")
            metrics.request_count.add(name, "OK")
            return web.Response(body=content, content_type="application/json")
        metrics.request_count.add(name, error.code_name)
        return _error(error.http_status, error.message)

    async def _read_body(self, request: web.Request) -> bytes:
        limit = self._max_request_bytes
        too_large = _BodyError(413, f"The request body must have at most {limit} bytes")
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise _BodyError(415, f"Content-Encoding must be gzip, but is {encoding[:40]}")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise too_large from None
        except (HttpProcessingError, web.RequestPayloadError) as error:
            raise _BodyError(400, f"The request body is malformed: {error}") from error
        if encoding == "identity":
            return body
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            content = decompressor.decompress(body, limit + 1)
        except zlib.error as error:
            raise _BodyError(400, f"The request body is not valid gzip: {error}") from error
        if len(content) > limit:
            raise too_large
        if not decompressor.eof or decompressor.unused_data:
            raise _BodyError(400, "The request body is not one whole gzip member")
        return content

    async def _route(self, method: str, match: re.Match[str], name: str, body: bytes) -> bytes:
        spec = _model_spec(match, name)
        if method == "GET":
            if not name:
                raise InvalidArgumentError("Missing model name in request.")
            return await (self._metadata(spec) if match["metadata"] else self._status(spec))
        if match["method"] != "predict":
            await self._service.refuse(match["method"].capitalize())
        deadline_s = time.monotonic() + self._timeout_s
        return await predict_json(self._service, spec, body, deadline_s)

    async def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return write_json(_to_dict(await self._service.get_model_status(request)))

    async def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[SIGNATURE_DEF_FIELD]
        )
        response = await self._service.get_model_metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF_FIELD].Unpack(signatures)
        return write_json(
            {
                "model_spec": _to_dict(response.model_spec),
                "metadata": {SIGNATURE_DEF_FIELD: _to_dict(signatures)},
            }
        )


class _BodyError(Exception):
    """The body of a request is invalid, too large or has an unsupported encoding."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _model_spec(match: re.Match[str], name: str) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name)
    if match["version"]:
        digits = match["version"].lstrip("0") or "0"
        # Python refuses to convert more than 4,300 digits.
        if len(digits) > len(str(MAX_VERSION)) or int(digits) > MAX_VERSION:
            raise InvalidArgumentError(
                f"The version must be a number up to {MAX_VERSION}, but is {digits[:40]}"
            )
        spec.version.value = int(digits)
    elif match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _to_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        # protobuf 5, which the type stubs describe, has renamed this argument.
        including_default_value_fields=True,  # type: ignore[call-arg]
    )


def _error(status: int, message: str) -> web.Response:
    body = write_json({"error": message})
    return web.Response(status=status, body=body, content_type="application/json")
