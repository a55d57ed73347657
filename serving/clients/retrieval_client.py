"""The methods of the clients that block, whatever the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, overload

from serving.clients.answer import Embedding, Recommendations
from serving.clients.model_metadata import ModelMetadata, VersionStatus
from serving.clients.query import FeatureValue, Query
from serving.clients.retrieval_core import RetrievalCore
from serving.clients.retry import RetryPolicy
from serving.clients.transport import Blocking, Transport, run_blocking

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_TIMEOUT_S = 5.0


class BaseRetrievalClient:
    """Asks a served retrieval model; a subclass says over which transport.

    It learns the names and types of the model's inputs from the server, at the first call. An
    instance may be shared by threads.

    Args:
        transport: The way to the model.
        timeout_s: How long a call may take, retries included, where it does not say so itself.
        retry_policy: How often a call is tried again while the server cannot be reached.
        query_id_name: The input that takes the query id; needed only where the model has several
            inputs that could be it.
        candidate_id_name: The input that takes the candidate id; likewise.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float,
        retry_policy: RetryPolicy,
        query_id_name: str | None,
        candidate_id_name: str | None,
    ) -> None:
        self._transport = transport
        self._core = RetrievalCore(
            Blocking(transport),
            timeout_s=timeout_s,
            retry_policy=retry_policy,
            query_id_name=query_id_name,
            candidate_id_name=candidate_id_name,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection."""
        self._transport.close()

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
    ) -> Recommendations: ...

    @overload
    def recommend(
        self, *, queries: Sequence[Query], k: int | None = ..., timeout_s: float | None = ...
    ) -> list[Recommendations]: ...

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
    ) -> Recommendations | list[Recommendations]:
        """Return the best candidates for one query, or for each of `queries`.

        Args:
            query_id: Whom or what to recommend to; "" for one the model does not know.
            history: Candidate ids of past events, oldest first.
            features: The query's features by name; what is not given counts as unknown.
            exclude: Candidate ids that must not come back.
            filters: Allowed values by candidate feature; a candidate must have one of each.
            queries: Several queries for one request, instead of the arguments above.
            k: How many candidates; all that the model returns by default.
            timeout_s: How long this call may take, retries included; else the client's.

        Returns:
            One answer, or with `queries` one for each; shorter than `k` where fewer candidates
            are left.

        Raises:
            InvalidArgumentError: If a feature or a filter is unknown, or `k` is more than the
                model returns.
            ServingError: As the server or the connection reports it.
        """
        query = Query(query_id, history, features or {}, exclude, filters or {})
        return run_blocking(self._core.recommend_one_or_many(query, queries, k, timeout_s))

    @overload
    def similar(
        self,
        candidate_id: str,
        *,
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> Recommendations: ...

    @overload
    def similar(
        self,
        *,
        candidate_ids: Sequence[str],
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> list[Recommendations]: ...

    def similar(
        self,
        candidate_id: str | None = None,
        *,
        candidate_ids: Sequence[str] | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        k: int | None = None,
        timeout_s: float | None = None,
    ) -> Recommendations | list[Recommendations]:
        """Return the candidates most like one candidate, or like each of `candidate_ids`.

        Args:
            candidate_id: The candidate.
            candidate_ids: Several candidates for one request, instead.
            filters: Allowed values by candidate feature, for every one of the candidates.
            k: How many candidates; all that the model returns by default.
            timeout_s: How long this call may take, retries included; else the client's.

        Raises:
            InvalidArgumentError: If a filter is unknown or `k` is more than the model returns.
            ServingError: As the server or the connection reports it.
        """
        return run_blocking(
            self._core.similar_to_one_or_many(
                candidate_id, candidate_ids, filters or {}, k, timeout_s
            )
        )

    def embed_query(
        self,
        query_id: str = "",
        *,
        history: Sequence[str] = (),
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Embedding:
        """Return the vector of a query.

        Args:
            query_id: The query's id.
            history: Candidate ids of past events, oldest first.
            features: The query's features by name.
            timeout_s: How long this call may take, retries included; else the client's.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        query = Query(query_id, history, features or {})
        return run_blocking(self._core.embed_queries([query], timeout_s))[0]

    def embed_queries(
        self, queries: Sequence[Query], *, timeout_s: float | None = None
    ) -> list[Embedding]:
        """Return the vector of each query, asked in one request.

        Args:
            queries: The queries; what they exclude means nothing here.
            timeout_s: How long this call may take, retries included; else the client's.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        return run_blocking(self._core.embed_queries(queries, timeout_s))

    def embed_candidate(
        self,
        candidate_id: str = "",
        *,
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Embedding:
        """Return the vector of a candidate.

        Args:
            candidate_id: The candidate's id.
            features: The candidate's features by name.
            timeout_s: How long this call may take, retries included; else the client's.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        candidate = Query(candidate_id, features=features or {})
        return run_blocking(self._core.embed_candidates([candidate], timeout_s))[0]

    def metadata(self, *, refresh: bool = False, timeout_s: float | None = None) -> ModelMetadata:
        """Return the model's signatures, asked once and then remembered.

        Args:
            refresh: Ask again, for instance after a new version was pushed.
            timeout_s: How long this call may take, retries included; else the client's.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        return run_blocking(self._core.metadata(refresh=refresh, timeout_s=timeout_s))

    def status(self, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first.

        Args:
            timeout_s: How long this call may take, retries included; else the client's.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        return run_blocking(self._core.status(timeout_s))
