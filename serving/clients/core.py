"""Everything that the clients have in common, without any I/O.

A method of a client is a generator here. It yields the next step, a `Send` or a `Pause`, and
receives the response, or a `ServingError` raised at the `yield`. So the blocking and the asyncio
clients share every decision and differ only in how they take a step. httpx's `auth_flow` uses the
same pattern.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from serving.clients.answer import (
    Embedding,
    Prediction,
    Recommendations,
    check_k,
    read_embeddings,
    read_recommendations,
)
from serving.clients.model import ModelMetadata, SignatureSpec, Tensor, VersionStatus
from serving.clients.query import Query, build_inputs, find_id_name
from serving.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    ServingError,
)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Send:
    """The step: send a request, in the protocol's form, and return the response."""

    request: Any
    timeout_s: float


@dataclasses.dataclass(frozen=True)
class Pause:
    """The step: wait."""

    seconds: float


Flow = Generator[Send | Pause, Any, T]
"""The steps of one call, and its result."""


@dataclasses.dataclass(frozen=True)
class Exchange(Generic[T]):
    """A request in the form of a protocol, and the function that reads its response."""

    request: Any
    read: Callable[[Any], T]


class ServingProtocol(Protocol):
    """The TensorFlow Serving API over gRPC or REST, as requests and responses only."""

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor]
    ) -> Exchange[Prediction]:
        """Run a signature."""

    def metadata(self) -> Exchange[ModelMetadata]:
        """Describe the model's signatures."""

    def status(self) -> Exchange[list[VersionStatus]]:
        """List the states of the model's versions."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """The number of attempts of a call and the pauses between them.

    Attributes:
        max_attempts: Attempts in total; 1 turns retries off.
        first_pause_s: The pause before the second attempt; it doubles each time. Each pause is
            shortened at random by up to half, so that clients of a restarted server do not
            return all at once.
        max_pause_s: The longest pause.
    """

    # The pauses add up to 175 to 350 ms. gRPC itself waits up to 100 ms before it reconnects.
    max_attempts: int = 4
    first_pause_s: float = 0.05
    max_pause_s: float = 2.0

    def pause_s(self, failures: int) -> float:
        """Return the pause after this many failures."""
        # The exponent is bounded because many attempts would overflow a float.
        longest_s = min(self.first_pause_s * 2.0 ** min(failures - 1, 60), self.max_pause_s)
        return longest_s * random.uniform(0.5, 1.0)


class Deadline:
    """The end of a call's time, shared by all of its steps."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineExceededError: If no time is left.
        """
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceededError(f"No answer within {self._timeout_s:g} s")
        return left_s

    def allows(self, pause_s: float) -> bool:
        """Return whether time is left after a pause."""
        return time.monotonic() + pause_s < self._ends_at


def exchange_with_retries(
    exchange: Exchange[T], policy: RetryPolicy, deadline: Deadline
) -> Flow[T]:
    """Send until there is an answer, the error is not retryable, or attempts or time run out.

    Raises:
        ServingError: The error of the last attempt.
    """
    failures = 0
    while True:
        try:
            return exchange.read((yield Send(exchange.request, deadline.left_s())))
        except ServingError as error:
            failures += 1
            pause_s = policy.pause_s(failures)
            exhausted = failures >= policy.max_attempts or not deadline.allows(pause_s)
            if not error.retryable or exhausted:
                raise
        yield Pause(pause_s)


class ClientCore:
    """Build requests from the model's signatures, send them with retries, read the answers.

    The arguments are those of `RetrievalMethods`.
    """

    def __init__(
        self,
        protocol: ServingProtocol,
        timeout_s: float,
        retry_policy: RetryPolicy,
        query_id_name: str | None,
        candidate_id_name: str | None,
    ) -> None:
        self._protocol = protocol
        self._timeout_s = timeout_s
        self._retry_policy = retry_policy
        self._query_id_name = query_id_name
        self._candidate_id_name = candidate_id_name
        self._metadata: ModelMetadata | None = None

    def recommend(
        self, one: Query, many: Sequence[Query] | None, k: int | None, timeout_s: float | None
    ) -> Flow[Recommendations | list[Recommendations]]:
        """Answer `one` query, or each of `many` if they are given."""
        if many is not None and one != Query():
            raise InvalidArgumentError("Pass either `queries` or the parts of one query, not both")
        queries = [one] if many is None else many
        restricted = any(query.is_restricted for query in queries)
        name = "recommend_excluding" if restricted else "serving_default"
        read = functools.partial(read_recommendations, k=k)
        answers = yield from self._predict(name, queries, read, timeout_s, k)
        return answers[0] if many is None else answers

    def similar(
        self,
        one: str | None,
        many: Sequence[str] | None,
        filters: Mapping[str, Sequence[str]],
        k: int | None,
        timeout_s: float | None,
    ) -> Flow[Recommendations | list[Recommendations]]:
        """Find candidates similar to `one`, or to each of `many`."""
        if (one is None) == (many is None):
            raise InvalidArgumentError("Pass either `candidate_id` or `candidate_ids`")
        ids = [one or ""] if many is None else many
        queries = [Query(candidate_id, filters=filters) for candidate_id in ids]
        read = functools.partial(read_recommendations, k=k)
        answers = yield from self._predict("similar_candidates", queries, read, timeout_s, k)
        return answers[0] if many is None else answers

    def embed_queries(
        self, queries: Sequence[Query], timeout_s: float | None
    ) -> Flow[list[Embedding]]:
        """Embed each query."""
        return (yield from self._predict("embed_query", queries, read_embeddings, timeout_s))

    def embed_one(
        self, signature_name: str, query: Query, timeout_s: float | None
    ) -> Flow[Embedding]:
        """Embed a query, or a candidate given as a query with its id and features."""
        return (yield from self._predict(signature_name, [query], read_embeddings, timeout_s))[0]

    def metadata(self, timeout_s: float | None, *, refresh: bool) -> Flow[ModelMetadata]:
        """Return the model's signatures; ask for them only once unless `refresh` is set."""
        return (yield from self._known_metadata(self._deadline(timeout_s), refresh=refresh))

    def status(self, timeout_s: float | None) -> Flow[list[VersionStatus]]:
        """Return the states of the model's versions."""
        return (yield from self._exchange(self._protocol.status(), self._deadline(timeout_s)))

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
        was_known = self._metadata is not None
        metadata = yield from self._known_metadata(deadline)
        try:
            return read((yield from self._send(metadata, name, queries, k, deadline)))
        except (InvalidArgumentError, FailedPreconditionError):
            # Either the call is wrong, or a newer version has another signature. Only in the
            # second case can the same call succeed with other inputs.
            newer = (yield from self._newer_metadata(deadline)) if was_known else None
            if newer is None or newer.signatures.get(name) == metadata.signatures.get(name):
                raise
        return read((yield from self._send(newer, name, queries, k, deadline)))

    def _send(
        self,
        metadata: ModelMetadata,
        name: str,
        queries: Sequence[Query],
        k: int | None,
        deadline: Deadline,
    ) -> Flow[Prediction]:
        signature = metadata.signatures.get(name)
        if signature is None:
            raise FailedPreconditionError(
                f"The model has no signature {name!r}; it has "
                f"{', '.join(sorted(metadata.signatures))}"
            )
        check_k(signature, k)
        inputs = build_inputs(signature, self._id_name(metadata, signature), queries)
        return (yield from self._exchange(self._protocol.predict(signature, inputs), deadline))

    def _id_name(self, metadata: ModelMetadata, signature: SignatureSpec) -> str:
        if signature.name not in ("similar_candidates", "embed_candidate"):
            return find_id_name(signature, self._query_id_name, "query_id_name")
        given = self._candidate_id_name
        similar = metadata.signatures.get("similar_candidates")
        if given is None and similar is not None:
            # `embed_candidate` may have other text inputs; here only the id has rank 1.
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
            # The error of the call itself says more. Ask again at the next call.
            self._metadata = None
            return None

    def _exchange(self, exchange: Exchange[T], deadline: Deadline) -> Flow[T]:
        return (yield from exchange_with_retries(exchange, self._retry_policy, deadline))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)
