"""Servers that answer as a test says, for what a healthy server never does."""

from __future__ import annotations

import http.server
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from serving.clients import messages, messages_pb2
from tests.builders import http_server

Answer = Callable[[Any, grpc.ServicerContext], Any]


@contextmanager
def fake_server(
    answers: dict[str, Answer],
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[int]:
    """Serve methods by their path and yield the port."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            request_class, response_class = messages.METHODS[details.method]
            return grpc.unary_unary_rpc_method_handler(
                answers[details.method],
                request_deserializer=request_class.FromString,
                response_serializer=response_class.SerializeToString,
            )

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Handler()])
    address = f"127.0.0.1:{port}"
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextmanager
def fake_rest_server(
    statuses: list[int] | None = None,
    context: ssl.SSLContext | None = None,
    body: bytes = b'{"model_version_status": []}',
) -> Iterator[int]:
    """Answer GetModelStatus with each of `statuses`, then 200; 0 drops the connection."""
    left = [] if statuses is None else statuses

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = left.pop(0) if left else 200
            if status == 0:
                self.close_connection = True
                return
            sent = body if status == 200 else b"<html>busy</html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    with http_server(Handler, context) as port:
        yield port


def signature_defs(**inputs_by_signature: dict[str, int]) -> Any:
    """Return a GetModelMetadataResponse: the rank of each string input, by signature.

    Every signature answers with `candidate_ids` and `scores`.
    """
    definitions = messages_pb2.SignatureDefMap()
    for name, inputs in inputs_by_signature.items():
        definition = definitions.signature_def[name]
        for alias, rank in inputs.items():
            definition.inputs[alias].dtype = 7
            for _ in range(rank):
                definition.inputs[alias].tensor_shape.dim.add(size=-1)
        for alias, dtype in (("candidate_ids", 7), ("scores", 1)):
            definition.outputs[alias].dtype = dtype
            definition.outputs[alias].tensor_shape.dim.add(size=-1)
            definition.outputs[alias].tensor_shape.dim.add(size=2)
    response = messages_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].value = definitions.SerializeToString()
    return response


def recommendations(*candidate_ids: str, version: int = 1) -> Any:
    """Return a PredictResponse for one query, scores falling from 1."""
    response = messages_pb2.PredictResponse()
    response.model_spec.version.value = version
    ids, scores = response.outputs["candidate_ids"], response.outputs["scores"]
    for tensor, dtype in ((ids, 7), (scores, 1)):
        tensor.dtype = dtype
        tensor.tensor_shape.dim.add(size=1)
        tensor.tensor_shape.dim.add(size=len(candidate_ids))
    ids.string_val.extend(candidate.encode() for candidate in candidate_ids)
    scores.float_val.extend(1.0 / (index + 1) for index in range(len(candidate_ids)))
    return response
