"""The logic that all clients share, without any I/O.

Each client method is a generator in this module. It yields the next step, a `Send` or a `Pause`.
The client takes the step and passes the response back, or raises a `ServingError` at the `yield`.
So the blocking and the asyncio clients share this logic and differ only in their I/O. httpx's
`auth_flow` uses the same pattern.
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
    """A step: send a request in the protocol's format, and return the response."""

    request: Any
    timeout_s: float


@dataclasses.dataclass(frozen=True)
class Pause:
    """A step: wait."""

    seconds: float


Flow = Generator[Send | Pause, Any, T]
"""The steps of one call, and its result."""


@dataclasses.dataclass(frozen=True)
class Exchange(Generic[T]):
    """A request in the protocol's format, and the function that parses its response."""

    request: Any
    read: Callable[[Any], T]


class ServingProtocol(Protocol):
    """Interface that builds requests and parses responses for gRPC or REST, without I/O.

    Each method returns a request and the function that parses its response.
    """

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor]
    ) -> Exchange[Prediction]:
        """Build the request that runs a signature."""

    def metadata(self) -> Exchange[ModelMetadata]:
        """Build the request for the model's signatures."""

    def status(self) -> Exchange[list[VersionStatus]]:
        """Build the request for the states of the model's versions."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """The number of attempts of a call and the pauses between them.

    Attributes:
        max_attempts: Maximum number of attempts of a call, including the first; 1 disables
            retries.
        first_pause_s: The pause before the second attempt; it doubles for each further one. Each
            pause is shortened at random by up to half, so that the clients of a restarted server
            do not all retry at the same time.
        max_pause_s: The longest pause.
    """

    # With these defaults, the pauses of a call add up to 175 to 350 ms. gRPC itself waits up to
    # 100 ms before it reconnects.
    max_attempts: int = 4
    first_pause_s: float = 0.05
    max_pause_s: float = 2.0

    def pause_s(self, failures: int) -> float:
        """Return the pause in seconds after the given number of failures (1 or more)."""
        # Without this bound on the exponent, the power overflows a float after many attempts.
        longest_s = min(self.first_pause_s * 2.0 ** min(failures - 1, 60), self.max_pause_s)
        return longest_s * random.uniform(0.5, 1.0)


class Deadline:
    """The time limit of a call, which includes all of its requests and pauses."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the remaining time in seconds.

        Raises:
            DeadlineExceededError: If no time is left.
        """
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceededError(f"No answer within {self._timeout_s:g} s")
        return left_s

    def allows(self, pause_s: float) -> bool:
        """Return whether a pause that starts now would end before the deadline."""
        return time.monotonic() + pause_s < self._ends_at


def exchange_with_retries(
    exchange: Exchange[T], policy: RetryPolicy, deadline: Deadline
) -> Flow[T]:
    """Send a request, and retry it after retryable errors while attempts and time are left.

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
    """The client methods as generators: build a request, send it with retries, parse the response.

    `RetrievalMethods` documents the arguments.
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
        """Return recommendations for `one` query, or a list for `many` if it is not None."""
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
        """Return the candidates similar to `one`, or a list with those for each of `many`."""
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
        """Return the embedding of each query."""
        return (yield from self._predict("embed_query", queries, read_embeddings, timeout_s))

    def embed_one(
        self, signature_name: str, query: Query, timeout_s: float | None
    ) -> Flow[Embedding]:
        """Return the embedding of a query, or of a candidate (its id and features as a Query)."""
        return (yield from self._predict(signature_name, [query], read_embeddings, timeout_s))[0]

    def metadata(self, timeout_s: float | None, *, refresh: bool) -> Flow[ModelMetadata]:
        """Return the model's signatures, which are cached; `refresh` requests them again."""
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
            # Either the arguments are wrong, or the server has a newer version with different
            # inputs. Only in the second case can a second attempt succeed.
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
        return (yield from exchange_with_retries(exchange, self._retry_policy, deadline))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)
