"""Clients of a served retrieval model. They need grpcio and protobuf, but not TensorFlow.

Example:
    from serving.clients import RetrievalClient

    with RetrievalClient("127.0.0.1:8500") as client:
        client.recommend("42", history=["1", "50"], exclude=["1", "50"], k=10)
"""

from serving.clients.answer import Embedding, Recommendations
from serving.clients.grpc_client import AsyncRetrievalClient, RetrievalClient
from serving.clients.model import ModelMetadata, SignatureSpec, TensorSpec, VersionStatus
from serving.clients.query import Query
from serving.clients.rest_client import RestRetrievalClient
from serving.clients.retry import RetryPolicy
from serving.clients.tls import TlsOptions

__all__ = [
    "AsyncRetrievalClient",
    "Embedding",
    "ModelMetadata",
    "Query",
    "Recommendations",
    "RestRetrievalClient",
    "RetrievalClient",
    "RetryPolicy",
    "SignatureSpec",
    "TensorSpec",
    "TlsOptions",
    "VersionStatus",
]
