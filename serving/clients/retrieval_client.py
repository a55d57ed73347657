"""The methods that all clients share, blocking or asyncio, over gRPC or REST."""

# `_run` returns a value in blocking clients and a coroutine in asyncio ones. Only the type
# variables below distinguish them, so mypy sees `Any`.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, overload

from serving.clients.answer import Embedding, Recommendations
from serving.clients.core import ClientCore, Flow, Pause, RetryPolicy, ServingProtocol
from serving.clients.model import ModelChoice, ModelMetadata, VersionStatus
from serving.clients.query import FeatureValue, Query
from serving.errors import ServingError

if TYPE_CHECKING:
    from typing_extensions import Self

# Return types of the methods: plain values, or coroutines for asyncio.
One = TypeVar("One")
Many = TypeVar("Many")
Vector = TypeVar("Vector")
Vectors = TypeVar("Vectors")
Metadata = TypeVar("Metadata")
Status = TypeVar("Status")


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of every client; see `RetrievalMethods`."""

    model_version: int | None
    version_label: str | None
    timeout_s: float
    retry_policy: RetryPolicy
    query_id_name: str | None
    candidate_id_name: str | None


class RetrievalMethods(Generic[One, Many, Vector, Vectors, Metadata, Status]):
    """The methods of a client of one served retrieval model.

    The first call requests the names and types of the model's inputs from the server. If a call
    fails because a newer version has different inputs, the client requests them again and repeats
    the call.

    Args:
        make_protocol: Function that returns the protocol for a model.
        model_name: The name under which the model is served.
        model_version: The version that answers requests; by default the newest.
        version_label: The label of that version, such as `stable`, instead of its number.
        timeout_s: Time limit of a call, including retries.
        retry_policy: The number of attempts and the pauses while the server is unavailable.
        query_id_name: The input that takes the query id. It is only needed if several inputs
            could take the id.
        candidate_id_name: The input that takes the candidate id. It is only needed if several
            inputs could take the id.

    Raises:
        InvalidArgumentError: If both a version and a label are given.
    """

    def __init__(
        self,
        make_protocol: Callable[[ModelChoice], ServingProtocol],
        model_name: str,
        *,
        model_version: int | None = None,
        version_label: str | None = None,
        timeout_s: float = 5.0,
        retry_policy: RetryPolicy = RetryPolicy(),
        query_id_name: str | None = None,
        candidate_id_name: str | None = None,
    ) -> None:
        protocol = make_protocol(ModelChoice(model_name, model_version, version_label))
        self._core = ClientCore(protocol, timeout_s, retry_policy, query_id_name, candidate_id_name)

    def _run(self, flow: Flow[Any]) -> Any:
        """Perform the steps of a call; return its result, or a coroutine that returns it."""
        raise NotImplementedError  # Each client of a protocol implements it.

    @overload
    def recommend(
        self,
        query_id: str = ...,
        *,
        history: Sequence[str] = ...,
        features: Mapping[str, FeatureValue] | None = ...,
        exclude: Sequence[str] = ...,
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> One: ...

    @overload
    def recommend(
        self, *, queries: Sequence[Query], k: int | None = ..., timeout_s: float | None = ...
    ) -> Many: ...

    def recommend(
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
    ) -> One | Many:
        """Return the best candidates for one query, or for each of `queries`.

        Args:
            query_id: The query id, for example a user id; "" if there is none.
            history: Candidate ids of past events, oldest first.
            features: The query's features by name; missing features are treated as unknown.
            exclude: Candidate ids that must not be returned.
            filters: Allowed values by candidate feature. A candidate is returned only if, for
                each of these features, it has an allowed value.
            queries: Several queries for one request, instead of the arguments above.
            k: Number of candidates per query; by default as many as the model returns.
            timeout_s: Time limit of this call, including retries; by default the client's.

        Returns:
            `Recommendations`, or a list of them for `queries`. They contain fewer than `k`
            candidates if exclusions and filters leave too few.

        Raises:
            InvalidArgumentError: If a feature or filter is unknown, or `k` is more than the
                model returns.
            ServingError: Any other error of the server or the connection.
        """
        query = Query(query_id, history, features or {}, exclude, filters or {})
        return self._run(self._core.recommend(query, queries, k, timeout_s))

    @overload
    def similar(
        self,
        candidate_id: str,
        *,
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> One: ...

    @overload
    def similar(
        self,
        *,
        candidate_ids: Sequence[str],
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> Many: ...

    def similar(
        self,
        candidate_id: str | None = None,
        *,
        candidate_ids: Sequence[str] | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        k: int | None = None,
        timeout_s: float | None = None,
    ) -> One | Many:
        """Return the candidates most similar to one candidate, or to each of `candidate_ids`.

        See `recommend` for the other arguments, the return value and the errors.
        """
        flow = self._core.similar(candidate_id, candidate_ids, filters or {}, k, timeout_s)
        return self._run(flow)

    def embed_query(
        self,
        query_id: str = "",
        *,
        history: Sequence[str] = (),
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Vector:
        """Return the `Embedding` of a query."""
        query = Query(query_id, history, features or {})
        return self._run(self._core.embed_one("embed_query", query, timeout_s))

    def embed_queries(self, queries: Sequence[Query], *, timeout_s: float | None = None) -> Vectors:
        """Return the `Embedding` of each query; all are sent in one request.

        Exclusions and filters have no effect.
        """
        return self._run(self._core.embed_queries(queries, timeout_s))

    def embed_candidate(
        self,
        candidate_id: str = "",
        *,
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Vector:
        """Return the `Embedding` of a candidate."""
        candidate = Query(candidate_id, features=features or {})
        return self._run(self._core.embed_one("embed_candidate", candidate, timeout_s))

    def metadata(self, *, refresh: bool = False, timeout_s: float | None = None) -> Metadata:
        """Return the model's signatures, which are cached; `refresh` requests them again."""
        return self._run(self._core.metadata(timeout_s, refresh=refresh))

    def status(self, *, timeout_s: float | None = None) -> Status:
        """Return the states of the model's versions, newest first."""
        return self._run(self._core.status(timeout_s))


class BlockingClient(
    RetrievalMethods[
        Recommendations,
        list[Recommendations],
        Embedding,
        list[Embedding],
        ModelMetadata,
        list[VersionStatus],
    ]
):
    """Base class of clients whose methods wait for the response. Threads may share a client."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError  # Each client of a protocol implements it.

    def _send(self, request: Any, timeout_s: float) -> Any:
        """Send a request and return the response.

        Raises:
            ServingError: If the request fails.
        """
        raise NotImplementedError  # Each client of a protocol implements it.

    def _run(self, flow: Flow[Any]) -> Any:
        try:
            step = next(flow)
            while True:
                response = None
                try:
                    if isinstance(step, Pause):
                        time.sleep(step.seconds)
                    else:
                        response = self._send(step.request, step.timeout_s)
                except ServingError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as stop:
            return stop.value
