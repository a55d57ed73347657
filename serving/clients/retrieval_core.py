"""What every client does between its methods and the transport, written once for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from serving.clients.answer import (
    Embedding,
    Recommendations,
    check_k,
    read_embeddings,
    read_recommendations,
)
from serving.clients.model_metadata import ModelMetadata, SignatureSpec, VersionStatus
from serving.clients.query import Query, build_inputs, find_id_name
from serving.clients.retry import Deadline, RetryPolicy, call_with_retries
from serving.clients.transport import AsyncTransport, Prediction
from serving.errors import FailedPreconditionError, InvalidArgumentError, ServingError

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class _Question:
    """What to ask of which signature, whatever inputs the signature has at the time."""

    signature_name: str
    find_id_name: Callable[[ModelMetadata, SignatureSpec], str]
    queries: Sequence[Query]
    k: int | None = None


class RetrievalCore:
    """Builds requests after the model's signatures, sends them with retries, reads the answers.

    Args:
        transport: The way to the model.
        timeout_s: How long a call may take, retries included, where the caller says nothing.
        retry_policy: How often a call is tried again while the server cannot be reached.
        query_id_name: The input that takes the query id, if the caller named it.
        candidate_id_name: The input that takes the candidate id, if the caller named it.
    """

    def __init__(
        self,
        transport: AsyncTransport,
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

    async def recommend(
        self, queries: Sequence[Query], k: int | None, timeout_s: float | None
    ) -> list[Recommendations]:
        """Return the best candidates for each query."""
        if not queries:
            return []
        restricted = any(query.is_restricted for query in queries)
        name = "recommend_excluding" if restricted else "serving_default"
        question = _Question(name, self._find_query_id_name, queries, k)
        return read_recommendations(await self._predict(question, timeout_s), k)

    async def similar(
        self,
        candidate_ids: Sequence[str],
        filters: Mapping[str, Sequence[str]],
        k: int | None,
        timeout_s: float | None,
    ) -> list[Recommendations]:
        """Return the candidates most like each of some candidates."""
        if not candidate_ids:
            return []
        queries = [Query(candidate_id, filters=filters) for candidate_id in candidate_ids]
        question = _Question("similar_candidates", self._find_candidate_id_name, queries, k)
        return read_recommendations(await self._predict(question, timeout_s), k)

    async def recommend_one_or_many(
        self, one: Query, many: Sequence[Query] | None, k: int | None, timeout_s: float | None
    ) -> Recommendations | list[Recommendations]:
        """Return the answer to one query, or those to many where they are given instead."""
        if many is None:
            return (await self.recommend([one], k, timeout_s))[0]
        if one != Query():
            raise InvalidArgumentError("Pass either `queries` or the parts of one query, not both")
        return await self.recommend(many, k, timeout_s)

    async def similar_to_one_or_many(
        self,
        one: str | None,
        many: Sequence[str] | None,
        filters: Mapping[str, Sequence[str]],
        k: int | None,
        timeout_s: float | None,
    ) -> Recommendations | list[Recommendations]:
        """Return what is like one candidate, or like each of many where they are given instead."""
        if (one is None) == (many is None):
            raise InvalidArgumentError("Pass either `candidate_id` or `candidate_ids`")
        if many is None:
            return (await self.similar([one or ""], filters, k, timeout_s))[0]
        return await self.similar(many, filters, k, timeout_s)

    async def embed_queries(
        self, queries: Sequence[Query], timeout_s: float | None
    ) -> list[Embedding]:
        """Return the vector of each query."""
        if not queries:
            return []
        question = _Question("embed_query", self._find_query_id_name, queries)
        return read_embeddings(await self._predict(question, timeout_s))

    async def embed_candidates(
        self, candidates: Sequence[Query], timeout_s: float | None
    ) -> list[Embedding]:
        """Return the vector of each candidate, given as a query with its id and features."""
        if not candidates:
            return []
        question = _Question("embed_candidate", self._find_candidate_id_name, candidates)
        return read_embeddings(await self._predict(question, timeout_s))

    async def metadata(
        self, *, refresh: bool = False, timeout_s: float | None = None
    ) -> ModelMetadata:
        """Return the model's signatures, asked once and then remembered."""
        return await self._known_metadata(self._deadline(timeout_s), refresh=refresh)

    async def status(self, timeout_s: float | None = None) -> list[VersionStatus]:
        """Return the states of the model's versions."""
        return await self._call(self._transport.status, self._deadline(timeout_s))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _find_query_id_name(self, metadata: ModelMetadata, signature: SignatureSpec) -> str:
        return find_id_name(signature, self._query_id_name, "query_id_name")

    def _find_candidate_id_name(self, metadata: ModelMetadata, signature: SignatureSpec) -> str:
        given = self._candidate_id_name
        similar = metadata.signatures.get("similar_candidates")
        if given is None and similar is not None:
            # `embed_candidate` may have more text inputs; beside filters this one has only the id.
            ids = [name for name, spec in similar.inputs.items() if spec.rank == 1]
            given = ids[0] if len(ids) == 1 else None
        return find_id_name(signature, given, "candidate_id_name")

    async def _known_metadata(self, deadline: Deadline, *, refresh: bool = False) -> ModelMetadata:
        known = self._metadata
        if known is None or refresh:
            known = self._metadata = await self._call(self._transport.metadata, deadline)
        return known

    async def _predict(self, question: _Question, timeout_s: float | None) -> Prediction:
        deadline = self._deadline(timeout_s)
        learned_before = self._metadata is not None
        metadata = await self._known_metadata(deadline)
        try:
            return await self._send(question, metadata, deadline)
        except (InvalidArgumentError, FailedPreconditionError):
            # Either the question is wrong, or a version that came since has another signature:
            # then, and only then, the same question may be right in another form.
            newer = await self._newer_metadata(deadline) if learned_before else None
            name = question.signature_name
            if newer is None or newer.signatures.get(name) == metadata.signatures.get(name):
                raise
        return await self._send(question, newer, deadline)

    async def _send(
        self, question: _Question, metadata: ModelMetadata, deadline: Deadline
    ) -> Prediction:
        signature = metadata.signatures.get(question.signature_name)
        if signature is None:
            raise FailedPreconditionError(
                f"The model has no signature {question.signature_name!r}; it has "
                f"{', '.join(sorted(metadata.signatures))}"
            )
        check_k(signature, question.k)
        id_name = question.find_id_name(metadata, signature)
        inputs = build_inputs(signature, id_name, question.queries)
        return await self._call(
            lambda left_s: self._transport.predict(signature, inputs, left_s), deadline
        )

    async def _newer_metadata(self, deadline: Deadline) -> ModelMetadata | None:
        try:
            return await self._known_metadata(deadline, refresh=True)
        except ServingError:
            # The question's own error says more; learn the signatures anew at the next call.
            self._metadata = None
            return None

    async def _call(self, call: Callable[[float], Awaitable[_T]], deadline: Deadline) -> _T:
        return await call_with_retries(call, self._retry_policy, deadline, self._transport.pause)
