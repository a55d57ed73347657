"""A gRPC server that answers what a test says, for what a healthy server never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from serving.clients import wire

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
            request_class, response_class = wire.METHODS[details.method]
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


def signature_defs(**inputs_by_signature: dict[str, int]) -> Any:
    """Return a GetModelMetadataResponse: the rank of each string input, by signature.

    Every signature answers with `candidate_ids` and `scores`.
    """
    definitions = wire.SignatureDefMap()
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
    response = wire.GetModelMetadataResponse()
    response.metadata["signature_def"].value = definitions.SerializeToString()
    return response


def recommendations(*candidate_ids: str, version: int = 1) -> Any:
    """Return a PredictResponse for one query, scores falling from 1."""
    response = wire.PredictResponse()
    response.model_spec.version.value = version
    ids, scores = response.outputs["candidate_ids"], response.outputs["scores"]
    for tensor, dtype in ((ids, 7), (scores, 1)):
        tensor.dtype = dtype
        tensor.tensor_shape.dim.add(size=1)
        tensor.tensor_shape.dim.add(size=len(candidate_ids))
    ids.string_val.extend(candidate.encode() for candidate in candidate_ids)
    scores.float_val.extend(1.0 / (place + 1) for place in range(len(candidate_ids)))
    return response
