"""Clients of a served retrieval model; they need neither TensorFlow nor NumPy."""

from serving.clients.answer import Embedding, Recommendations
from serving.clients.async_grpc_client import AsyncRetrievalClient
from serving.clients.grpc_client import RetrievalClient
from serving.clients.model_metadata import (
    ModelMetadata,
    SignatureSpec,
    TensorSpec,
    VersionStatus,
)
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
