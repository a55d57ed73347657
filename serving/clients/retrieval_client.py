"""The client's methods, whatever the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from typing_extensions import Self

from serving.clients.answer import (
    Embedding,
    Recommendations,
    check_k,
    read_embeddings,
    read_recommendations,
)
from serving.clients.model_metadata import ModelMetadata, SignatureSpec, VersionStatus
from serving.clients.query import FeatureValue, Query, build_inputs, find_id_name
from serving.clients.retry import RetryPolicy, call_with_retries
from serving.clients.transport import Prediction, Transport
from serving.errors import FailedPreconditionError, InvalidArgumentError

DEFAULT_TIMEOUT_S = 5.0


class BaseRetrievalClient:
    """Asks a served retrieval model; a subclass says over which transport.

    It learns the names and types of the model's inputs from the server, at the first call. An
    instance may be shared by threads.

    Args:
        transport: The way to the model.
        timeout_s: How long a call may take, retries included.
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
        self._timeout_s = timeout_s
        self._retry_policy = retry_policy
        self._query_id_name = query_id_name
        self._candidate_id_name = candidate_id_name
        self._metadata: ModelMetadata | None = None

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
    ) -> Recommendations: ...

    @overload
    def recommend(
        self, *, queries: Sequence[Query], k: int | None = ...
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

        Returns:
            One answer, or with `queries` one for each; shorter than `k` where fewer candidates
            are left.

        Raises:
            InvalidArgumentError: If a feature or a filter is unknown, or `k` is more than the
                model returns.
            ServingError: As the server or the connection reports it.
        """
        if queries is None:
            query = Query(query_id, history, features or {}, exclude, filters or {})
            return self._recommend([query], k)[0]
        if query_id or history or features or exclude or filters:
            raise InvalidArgumentError("Pass either `queries` or the parts of one query, not both")
        return self._recommend(queries, k)

    @overload
    def similar(
        self,
        candidate_id: str,
        *,
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
    ) -> Recommendations: ...

    @overload
    def similar(
        self,
        *,
        candidate_ids: Sequence[str],
        filters: Mapping[str, Sequence[str]] | None = ...,
        k: int | None = ...,
    ) -> list[Recommendations]: ...

    def similar(
        self,
        candidate_id: str | None = None,
        *,
        candidate_ids: Sequence[str] | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        k: int | None = None,
    ) -> Recommendations | list[Recommendations]:
        """Return the candidates most like one candidate, or like each of `candidate_ids`.

        Args:
            candidate_id: The candidate.
            candidate_ids: Several candidates for one request, instead.
            filters: Allowed values by candidate feature, for every one of the candidates.
            k: How many candidates; all that the model returns by default.

        Raises:
            InvalidArgumentError: If a filter is unknown or `k` is more than the model returns.
            ServingError: As the server or the connection reports it.
        """
        if (candidate_id is None) == (candidate_ids is None):
            raise InvalidArgumentError("Pass either `candidate_id` or `candidate_ids`")
        if candidate_ids is not None:
            return self._similar(candidate_ids, filters or {}, k)
        return self._similar([candidate_id or ""], filters or {}, k)[0]

    def embed_query(
        self,
        query_id: str = "",
        *,
        history: Sequence[str] = (),
        features: Mapping[str, FeatureValue] | None = None,
    ) -> Embedding:
        """Return the vector of a query.

        Args:
            query_id: The query's id.
            history: Candidate ids of past events, oldest first.
            features: The query's features by name.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        signature = self._signature("embed_query")
        id_name = find_id_name(signature, self._query_id_name, "query_id_name")
        query = Query(query_id, history, features or {})
        return read_embeddings(self._predict(signature, id_name, [query]))[0]

    def embed_candidate(
        self, candidate_id: str = "", *, features: Mapping[str, FeatureValue] | None = None
    ) -> Embedding:
        """Return the vector of a candidate.

        Args:
            candidate_id: The candidate's id.
            features: The candidate's features by name.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        signature = self._signature("embed_candidate")
        id_name = self._find_candidate_id_name(signature)
        query = Query(candidate_id, features=features or {})
        return read_embeddings(self._predict(signature, id_name, [query]))[0]

    def metadata(self, *, refresh: bool = False) -> ModelMetadata:
        """Return the model's signatures, asked once and then remembered.

        Args:
            refresh: Ask again, for instance after a new version was pushed.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        if self._metadata is None or refresh:
            self._metadata = call_with_retries(
                self._transport.metadata, self._retry_policy, self._timeout_s
            )
        return self._metadata

    def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        return call_with_retries(self._transport.status, self._retry_policy, self._timeout_s)

    def _recommend(self, queries: Sequence[Query], k: int | None) -> list[Recommendations]:
        restricted = any(query.is_restricted for query in queries)
        signature = self._signature("recommend_excluding" if restricted else "serving_default")
        check_k(signature, k)
        if not queries:
            return []
        id_name = find_id_name(signature, self._query_id_name, "query_id_name")
        return read_recommendations(self._predict(signature, id_name, queries), k)

    def _similar(
        self, candidate_ids: Sequence[str], filters: Mapping[str, Sequence[str]], k: int | None
    ) -> list[Recommendations]:
        signature = self._signature("similar_candidates")
        check_k(signature, k)
        if not candidate_ids:
            return []
        id_name = self._find_candidate_id_name(signature)
        queries = [Query(candidate_id, filters=filters) for candidate_id in candidate_ids]
        return read_recommendations(self._predict(signature, id_name, queries), k)

    def _find_candidate_id_name(self, signature: SignatureSpec) -> str:
        given = self._candidate_id_name
        similar = self.metadata().signatures.get("similar_candidates")
        if given is None and similar is not None:
            # `embed_candidate` may have more text inputs; beside filters this one has only the id.
            ids = [name for name, spec in similar.inputs.items() if spec.rank == 1]
            given = ids[0] if len(ids) == 1 else None
        return find_id_name(signature, given, "candidate_id_name")

    def _signature(self, name: str) -> SignatureSpec:
        signatures = self.metadata().signatures
        if name not in signatures:
            raise FailedPreconditionError(
                f"The model has no signature {name!r}; it has {', '.join(sorted(signatures))}"
            )
        return signatures[name]

    def _predict(
        self, signature: SignatureSpec, id_name: str, queries: Sequence[Query]
    ) -> Prediction:
        inputs = build_inputs(signature, id_name, queries)
        try:
            return call_with_retries(
                lambda left_s: self._transport.predict(signature, inputs, left_s),
                self._retry_policy,
                self._timeout_s,
            )
        except (InvalidArgumentError, FailedPreconditionError):
            # A new version may have other inputs: learn them anew at the next call.
            self._metadata = None
            raise
