"""The methods that all clients share, blocking or asyncio, over gRPC or REST."""

# `_run` returns a value in blocking clients and a coroutine in asyncio ones. Only the type
# variables below distinguish them, so mypy sees `Any`.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, overload

from serving.clients.answer import (
    CANDIDATE_IDS,
    Prediction,
    Recommendations,
    check_k,
    read_embeddings,
    read_recommendations,
    read_scores,
)
from serving.clients.model import (
    ModelChoice,
    ModelMetadata,
    SignatureSpec,
    shown,
)
from serving.clients.query import (
    FeatureValue,
    Query,
    build_inputs,
    find_id_name,
    plain,
)
from serving.clients.retry import Deadline, Exchange, Flow, RetryPolicy, send_with_retries
from serving.errors import FailedPreconditionError, InvalidArgumentError, ServingError

if TYPE_CHECKING:
    pass

_TIMEOUT_S = 5.0

T = TypeVar("T")
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
    timeout_s: float | None
    retry_policy: RetryPolicy | None
    query_id_name: str | None
    candidate_id_name: str | None


class RetrievalMethods(abc.ABC, Generic[One, Many, Vector, Vectors, Metadata, Status]):
    """The methods of a client of one served retrieval model.

    The first call requests the names and types of the model's inputs from the server. If a call
    fails because a newer version has different inputs, the client requests them again and repeats
    the call.

    Args:
        make_protocol: Function that returns the `GrpcProtocol` or `RestProtocol` for a model.
        model_name: The name under which the model is served.
        model_version: The version that answers requests; by default the newest.
        version_label: The label of that version, such as `stable`, instead of its number.
        timeout_s: Time limit of a call, including retries; by default 5.
        retry_policy: The number of attempts and the pauses while the server is unavailable.
        query_id_name: The input that takes the query id. It is only needed if several inputs
            could take the id.
        candidate_id_name: The input that takes the candidate id. It is only needed if several
            inputs could take the id.

    Raises:
        InvalidArgumentError: If an option is invalid, or both a version and a label are given.
    """

    def __init__(
        self,
        make_protocol: Callable[[ModelChoice], Any],
        model_name: str,
        *,
        model_version: int | None = None,
        version_label: str | None = None,
        timeout_s: float | None = None,
        retry_policy: RetryPolicy | None = None,
        query_id_name: str | None = None,
        candidate_id_name: str | None = None,
    ) -> None:
        self._protocol = make_protocol(ModelChoice(model_name, plain(model_version), version_label))
        self._timeout_s = _TIMEOUT_S if timeout_s is None else timeout_s
        self._retry_policy = retry_policy or RetryPolicy()
        self._query_id_name = query_id_name
        self._candidate_id_name = candidate_id_name
        self._metadata: ModelMetadata | None = None

    @abc.abstractmethod
    def _run(self, flow: Flow[Any]) -> Any:
        """Perform the steps of a call; return its result, or a coroutine that returns it."""

    @overload
    def recommend(
        self,
        query_id: str | None = ...,
        *,
        history: Iterable[str] | None = ...,
        features: Mapping[str, FeatureValue] | None = ...,
        exclude: Iterable[str] | None = ...,
        filters: Mapping[str, Iterable[str] | None] | None = ...,
        exclude_seen: bool | None = ...,
        time: int | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> One: ...

    @overload
    def recommend(
        self, *, queries: Iterable[Query], k: int | None = ..., timeout_s: float | None = ...
    ) -> Many: ...

    def recommend(
        self,
        query_id: str | None = None,
        *,
        history: Iterable[str] | None = None,
        features: Mapping[str, FeatureValue] | None = None,
        exclude: Iterable[str] | None = None,
        filters: Mapping[str, Iterable[str] | None] | None = None,
        exclude_seen: bool | None = None,
        time: int | None = None,
        queries: Iterable[Query] | None = None,
        k: int | None = None,
        timeout_s: float | None = None,
    ) -> One | Many:
        """Return the best candidates for one query, or for each of `queries`.

        Args:
            query_id: The query id, for example a user id; "" if there is none.
            history: Candidate ids of past events, oldest first, in any iterable.
            features: The query's features by name; missing features are treated as unknown.
            exclude: Candidate ids that must not be returned.
            filters: Allowed values by candidate feature. A candidate is returned only if, for
                each of these features, it has an allowed value.
            exclude_seen: Whether candidates of the history must not be returned. Without
                `history`, this is the history that the model keeps, if it does.
            time: The moment of the request in seconds since 1970, at which candidates must be
                available; by default now. The model must have times of availability.
            queries: Several queries for one request, instead of the arguments above.
            k: Number of candidates per query; by default as many as the model returns.
            timeout_s: Time limit of this call, including retries; by default the client's.

        Returns:
            `Recommendations`, or a list of them for `queries`. They contain fewer than `k`
            candidates if exclusions and filters leave too few.

        Raises:
            InvalidArgumentError: If a feature or filter is unknown, a value does not have the type
                of its input, or `k` is more than the model returns.
            ServingError: Any other error of the server or the connection.
        """
        query = _query(query_id, history, features, exclude, filters, exclude_seen, time)
        if queries is not None and query != Query():
            raise InvalidArgumentError("Pass either `queries` or the parts of one query, not both")
        asked = [query] if queries is None else _queries(queries)
        restricted = any(query.is_restricted for query in asked)
        name = "recommend_excluding" if restricted else "serving_default"
        flow = self._search(name, asked, k, timeout_s)
        return self._run(_first(flow) if queries is None else flow)

    @overload
    def similar(
        self,
        candidate_id: str,
        *,
        filters: Mapping[str, Iterable[str] | None] | None = ...,
        time: int | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> One: ...

    @overload
    def similar(
        self,
        *,
        candidate_ids: Iterable[str],
        filters: Mapping[str, Iterable[str] | None] | None = ...,
        time: int | None = ...,
        k: int | None = ...,
        timeout_s: float | None = ...,
    ) -> Many: ...

    def similar(
        self,
        candidate_id: str | None = None,
        *,
        candidate_ids: Iterable[str] | None = None,
        filters: Mapping[str, Iterable[str] | None] | None = None,
        time: int | None = None,
        k: int | None = None,
        timeout_s: float | None = None,
    ) -> One | Many:
        """Return the candidates most similar to one candidate, or to each of `candidate_ids`.

        See `recommend` for the other arguments, the return value and the errors.
        """
        if (candidate_id is None) == (candidate_ids is None):
            raise InvalidArgumentError("Pass either `candidate_id` or `candidate_ids`")
        ids = (candidate_id,) if candidate_ids is None else plain(candidate_ids)
        if not isinstance(ids, tuple):
            raise InvalidArgumentError(f"candidate_ids must be a list of strings, got {shown(ids)}")
        asked = [_query(each, filters=filters, time=time) for each in ids]
        flow = self._search("similar_candidates", asked, k, timeout_s)
        return self._run(_first(flow) if candidate_ids is None else flow)

    def rank(
        self,
        candidate_ids: Iterable[str],
        *,
        query_id: str | None = None,
        history: Iterable[str] | None = None,
        features: Mapping[str, FeatureValue] | None = None,
        time: int | None = None,
        timeout_s: float | None = None,
    ) -> One:
        """Return `Recommendations` with the given candidates in their order, and their scores.

        The model needs a ranking stage. Candidates that are unknown, or not available at `time`,
        have the lowest score.
        """
        given = plain(candidate_ids)
        if not isinstance(given, tuple):
            raise InvalidArgumentError(
                f"candidate_ids must be a list of strings, got {shown(given)}"
            )
        query = _query(query_id, history, {**(features or {}), CANDIDATE_IDS: given}, time=time)
        read = functools.partial(read_scores, candidate_ids=given)
        return self._run(_first(self._predict("rank", [query], read, timeout_s)))

    def embed_query(
        self,
        query_id: str | None = None,
        *,
        history: Iterable[str] | None = None,
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Vector:
        """Return the `Embedding` of a query."""
        query = _query(query_id, history, features)
        return self._run(_first(self._predict("embed_query", [query], read_embeddings, timeout_s)))

    def embed_queries(self, queries: Iterable[Query], *, timeout_s: float | None = None) -> Vectors:
        """Return the `Embedding` of each query; all are sent in one request.

        Exclusions and filters have no effect.
        """
        asked = _queries(queries)
        return self._run(self._predict("embed_query", asked, read_embeddings, timeout_s))

    def embed_candidate(
        self,
        candidate_id: str | None = None,
        *,
        features: Mapping[str, FeatureValue] | None = None,
        timeout_s: float | None = None,
    ) -> Vector:
        """Return the `Embedding` of a candidate."""
        candidate = _query(candidate_id, features=features)
        flow = self._predict("embed_candidate", [candidate], read_embeddings, timeout_s)
        return self._run(_first(flow))

    def metadata(self, *, refresh: bool = False, timeout_s: float | None = None) -> Metadata:
        """Return the model's signatures, which are cached; `refresh` requests them again."""
        return self._run(self._known_metadata(self._deadline(timeout_s), refresh=refresh))

    def status(self, *, timeout_s: float | None = None) -> Status:
        """Return the states of the model's versions, newest first."""
        return self._run(self._exchange(self._protocol.status(), self._deadline(timeout_s)))

    def _search(
        self, name: str, queries: Sequence[Query], k: int | None, timeout_s: float | None
    ) -> Flow[list[Recommendations]]:
        k = plain(k)
        read = functools.partial(read_recommendations, k=k)
        return self._predict(name, queries, read, timeout_s, k)

    def _predict(
        self,
        name: str,
        queries: Sequence[Query],
        read: Callable[[Prediction], list[T]],
        timeout_s: float | None,
        k: int | None = None,
    ) -> Flow[list[T]]:
        if not queries:
            return []
        deadline = self._deadline(timeout_s)

        def predict(metadata: ModelMetadata) -> Flow[list[T]]:
            signature = metadata.signatures.get(name)
            if signature is None:
                raise FailedPreconditionError(
                    f"The model has no signature {name!r}; it has "
                    f"{', '.join(sorted(metadata.signatures))}"
                )
            check_k(signature, k)
            inputs = build_inputs(signature, self._id_name(metadata, signature), queries)
            exchange: Exchange[Prediction] = self._protocol.predict(signature, inputs)
            return read((yield from self._exchange(exchange, deadline)))

        was_known = self._metadata is not None
        metadata = yield from self._known_metadata(deadline)
        try:
            return (yield from predict(metadata))
        except (InvalidArgumentError, FailedPreconditionError):
            # Either the arguments are wrong, or the server has a newer version with different
            # inputs. Only in the second case can a second attempt succeed.
            newer = (yield from self._newer_metadata(deadline)) if was_known else None
            if newer is None or newer.signatures.get(name) == metadata.signatures.get(name):
                raise
        return (yield from predict(newer))

    def _id_name(self, metadata: ModelMetadata, signature: SignatureSpec) -> str:
        if signature.name not in ("similar_candidates", "embed_candidate"):
            return find_id_name(signature, self._query_id_name, "query_id_name")
        given = self._candidate_id_name
        similar = metadata.signatures.get("similar_candidates")
        if given is None and similar is not None:
            # `embed_candidate` may have several string inputs of rank 1, but in
            # `similar_candidates` only the id has rank 1.
            ids = [name for name, spec in similar.inputs.items() if spec.rank == 1]
            given = ids[0] if len(ids) == 1 else None
        return find_id_name(signature, given, "candidate_id_name")

    def _known_metadata(self, deadline: Deadline, *, refresh: bool = False) -> Flow[ModelMetadata]:
        known = self._metadata
        if known is None or refresh:
            known = self._metadata = yield from self._exchange(self._protocol.metadata(), deadline)
        return known

    def _newer_metadata(self, deadline: Deadline) -> Flow[ModelMetadata | None]:
        try:
            return (yield from self._known_metadata(deadline, refresh=True))
        except ServingError:
            # The caller raises the error of its own request, which is more useful. Clear the
            # cache, so that the next call requests the metadata again.
            self._metadata = None
            return None

    def _exchange(self, exchange: Exchange[T], deadline: Deadline) -> Flow[T]:
        return (yield from send_with_retries(exchange, self._retry_policy, deadline))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(plain(self._timeout_s if timeout_s is None else timeout_s))


def _query(*values: Any, **named: Any) -> Query:
    """Return a query of values that it converts, which its types do not describe."""
    return Query(*values, **named)


def _queries(queries: Any) -> Sequence[Query]:
    found = plain(queries)
    if not isinstance(found, tuple) or not all(isinstance(query, Query) for query in found):
        raise InvalidArgumentError(f"queries must be a list of Query objects, got {shown(queries)}")
    return found


def _first(flow: Flow[list[T]]) -> Flow[T]:
    return (yield from flow)[0]
