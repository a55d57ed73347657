"""The gRPC client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import grpc

from serving.clients import grpc_calls, grpc_messages
from serving.clients.answer import Embedding, Recommendations
from serving.clients.model_choice import ModelChoice
from serving.clients.model_metadata import ModelMetadata, SignatureSpec, VersionStatus
from serving.clients.query import FeatureValue, Query
from serving.clients.retrieval_client import DEFAULT_TIMEOUT_S
from serving.clients.retrieval_core import RetrievalCore
from serving.clients.retry import RetryPolicy
from serving.clients.tensor import Tensor
from serving.clients.tls import TlsOptions
from serving.clients.transport import Prediction

if TYPE_CHECKING:
    from typing_extensions import Self


class AsyncRetrievalClient:
    """Asks a retrieval model over gRPC, for asyncio.

        async with AsyncRetrievalClient("127.0.0.1:8500") as client:
            await client.recommend("u1", history=["m1", "m2"], features={"age": 30}, k=10)

    All requests share one connection; any number may be under way. Make it where an event loop
    runs, and use it there only.

    Args:
        target: `host:port`, or `dns:///name:port` to ask all addresses of a name in turn.
        model_name: The name under which the model is served.
        model_version: The version to ask; None for the newest.
        version_label: The label of the version to ask, such as `stable`, instead.
        timeout_s: How long a call may take, retries included, where it does not say so itself.
        retry_policy: How often a call is tried again while the server cannot be reached.
        query_id_name: The input that takes the query id; needed only where the model has several
            inputs that could be it.
        candidate_id_name: The input that takes the candidate id; likewise.
        tls: Encrypts the connection; None leaves it plain.
        channel: A channel of `grpc.aio` to use instead of a new one; it is left open.

    Raises:
        InvalidArgumentError: If both a version and a label are given, or a file of `tls` cannot
            be read.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "retrieval",
        *,
        model_version: int | None = None,
        version_label: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_policy: RetryPolicy = RetryPolicy(),
        query_id_name: str | None = None,
        candidate_id_name: str | None = None,
        tls: TlsOptions | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        model = ModelChoice(model_name, model_version, version_label)
        self._owns_channel = channel is None
        self._channel = channel or grpc_calls.make_channel(grpc.aio, target, tls)
        self._core = RetrievalCore(
            AsyncGrpcTransport(self._channel, model),
            timeout_s=timeout_s,
            retry_policy=retry_policy,
            query_id_name=query_id_name,
            candidate_id_name=candidate_id_name,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel unless it is the caller's."""
        if self._owns_channel:
            await self._channel.close()

    @overload
    async def recommend(
        self,
        query_id: str = ...,
        *,
        history: Sequence[str] = ...,
        features: Mapping[str, FeatureValue] | None = ...,
        exclude: Sequence[str] = ...,
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> Recommendations: ...

    @overload
    async def recommend(
        self, *, queries: Sequence[Query], k: int | None = ..., timeout_s: float | None = ...
    ) -> list[Recommendations]: ...

    async def recommend(
        self,
        query_id: str = "",
        *,
        history: Sequence[str] = (),
        features: Mapping[str, FeatureValue] | None = None,
        exclude: Sequence[str] = (),
        filters: Mapping[str, Sequence[str]] | None = None,
        queries: Sequence[Query] | None = None,
        k: int | None = None,
        timeout_s: float | None = None,
    ) -> Recommendations | list[Recommendations]:
        """Return the best candidates for one query, or for each. See `RetrievalClient`."""
        query = Query(query_id, history, features or {}, exclude, filters or {})
        return await self._core.recommend_one_or_many(query, queries, k, timeout_s)

    @overload
    async def similar(
        self,
        candidate_id: str,
        *,
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> Recommendations: ...

    @overload
    async def similar(
        self,
        *,
        candidate_ids: Sequence[str],
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> list[Recommendations]: ...

    async def similar(
        self,
        candidate_id: str | None = None,
        *,
        candidate_ids: Sequence[str] | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        k: int | None = None,
        timeout_s: float | None = None,
    ) -> Recommendations | list[Recommendations]:
        """Return the candidates most like one, or like each. See `RetrievalClient`."""
        return await self._core.similar_to_one_or_many(
            candidate_id, candidate_ids, filters or {}, k, timeout_s
        )

    async def embed_query(
        self,
        query_id: str = "",
        *,
        history: Sequence[str] = (),
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Embedding:
        """Return the vector of a query. See `RetrievalClient`."""
        query = Query(query_id, history, features or {})
        return (await self._core.embed_queries([query], timeout_s))[0]

    async def embed_queries(
        self, queries: Sequence[Query], *, timeout_s: float | None = None
    ) -> list[Embedding]:
        """Return the vector of each query, asked in one request. See `RetrievalClient`."""
        return await self._core.embed_queries(queries, timeout_s)

    async def embed_candidate(
        self,
        candidate_id: str = "",
        *,
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Embedding:
        """Return the vector of a candidate. See `RetrievalClient`."""
        candidate = Query(candidate_id, features=features or {})
        return (await self._core.embed_candidates([candidate], timeout_s))[0]

    async def metadata(
        self, *, refresh: bool = False, timeout_s: float | None = None
    ) -> ModelMetadata:
        """Return the model's signatures, asked once. See `RetrievalClient`."""
        return await self._core.metadata(refresh=refresh, timeout_s=timeout_s)

    async def status(self, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first. See `RetrievalClient`."""
        return await self._core.status(timeout_s)


class AsyncGrpcTransport:
    """The way to a model over a channel of `grpc.aio`."""

    def __init__(self, channel: grpc.aio.Channel, model: ModelChoice) -> None:
        self._model = model
        self._predict = grpc_calls.bind(channel, grpc_calls.PREDICT)
        self._get_metadata = grpc_calls.bind(channel, grpc_calls.GET_MODEL_METADATA)
        self._get_status = grpc_calls.bind(channel, grpc_calls.GET_MODEL_STATUS)

    async def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor], timeout_s: float
    ) -> Prediction:
        """Run a signature."""
        request = grpc_messages.predict_request(self._model, signature.name, inputs)
        return grpc_messages.read_prediction(await _call(self._predict, request, timeout_s))

    async def metadata(self, timeout_s: float) -> ModelMetadata:
        """Describe the model's signatures."""
        request = grpc_messages.metadata_request(self._model)
        return grpc_messages.read_metadata(await _call(self._get_metadata, request, timeout_s))

    async def status(self, timeout_s: float) -> list[VersionStatus]:
        """Tell the states of the model's versions."""
        request = grpc_messages.status_request(self._model)
        return grpc_messages.read_status(await _call(self._get_status, request, timeout_s))

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def _call(method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
    try:
        return await method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise grpc_calls.as_serving_error(error) from error
