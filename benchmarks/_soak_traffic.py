"""Models and clients of the soak test. The clients send requests and check every answer."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from serving.clients import (
    AsyncRetrievalClient,
    Query,
    Recommendations,
    RestRetrievalClient,
    RetrievalClient,
    RetryPolicy,
)
from serving.errors import ServingError

VARIANTS = 4
NUM_USERS = 500
NUM_QUERIES = 60
_LONGEST_HISTORY = 30
_PATIENT = RetryPolicy(max_attempts=1000, first_pause_s=0.05, max_pause_s=0.5)
_IMPATIENT = RetryPolicy(max_attempts=1)
_PATIENCE_S = 90.0
_PAUSE_S = 0.01
_TOLERANCE = 1e-3
_NAMES: dict[str, Any] = {"query_id_name": "user_id", "candidate_id_name": "item_id"}

# IDs and scores by kind of answer, for each query and variant.
Answers = list[list[dict[str, tuple[list[str], list[float]]]]]


def make_queries(num_candidates: int) -> list[Query]:
    """Return queries with histories of random lengths; every third excludes its history.

    Some of the users and events are unknown to the models.
    """
    rng = random.Random(99)
    queries = []
    for number in range(NUM_QUERIES):
        length = rng.randrange(_LONGEST_HISTORY)
        history = [f"item_{rng.randrange(num_candidates + 5)}" for _ in range(length)]
        user = f"u{rng.randrange(NUM_USERS + 10)}"
        queries.append(Query(user, history, exclude=history if number % 3 == 2 else ()))
    return queries


def prepare_models(folder: str, num_candidates: str) -> Callable[[], Answers]:
    """Return a function that exports the models as `variant_N`, and returns their answers."""
    import tensorflow as tf

    from benchmarks._serving_model import export

    queries = make_queries(int(num_candidates))

    def answers(signatures: Any, number: int, query: Query) -> dict[str, Any]:
        history = tf.constant([query.history], tf.string, [1, len(query.history)])
        inputs = {"user_id": tf.constant([query.query_id]), "history": history}
        if query.exclude:
            no = tf.constant([False])
            best = signatures["recommend_excluding"](**inputs, exclude=history, exclude_seen=no)
        else:
            best = signatures["serving_default"](**inputs)
        similar = signatures["similar_candidates"](item_id=tf.constant([f"item_{number}"]))
        return {
            kind: (
                [name.decode() for name in found["candidate_ids"].numpy()[0].tolist()],
                found["scores"].numpy()[0].tolist(),
            )
            for kind, found in (("best", best), ("similar", similar))
        }

    def make() -> Answers:
        found = []
        for variant in range(VARIANTS):
            directory = str(Path(folder, f"variant_{variant}"))
            export(directory, int(num_candidates), "exact", NUM_USERS, seed=variant)
            model = tf.saved_model.load(directory)
            found.append([answers(model.signatures, *query) for query in enumerate(queries)])
        return found

    return make


class Traffic:
    """The clients of the soak test and their joint results.

    Args:
        queries: The queries.
        answers: Their correct answers. Version `v` contains variant `v % VARIANTS`.
        ports: The server's `grpc_port` and `rest_port`.
        ends_at: The end of the test, as a time of `time.monotonic`.
    """

    def __init__(
        self, queries: list[Query], answers: Answers, ports: dict[str, int], ends_at: float
    ) -> None:
        self._queries = queries
        self._answers = answers
        self._grpc_target = f"127.0.0.1:{ports['grpc_port']}"
        self._rest_url = f"http://127.0.0.1:{ports['rest_port']}"
        self._ends_at = ends_at
        self.answered: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.failures: list[tuple[float, str]] = []
        self.versions: Counter[int] = Counter()

    async def run(self) -> None:
        """Send requests from all clients until the end of the test."""
        await asyncio.gather(
            self._client("gRPC batch", self._ask_batch, 0),
            self._client("gRPC similar", self._ask_similar, 17),
            self._client("gRPC asyncio", self._ask_one, 34),
            self._client("gRPC asyncio", self._ask_one, 51),
            # Without retries, to detect failures outside of restarts.
            self._client("gRPC without retries", self._ask_one, 5, is_patient=False),
            asyncio.to_thread(self._blocking_client, RetrievalClient, self._grpc_target, "gRPC"),
            asyncio.to_thread(self._blocking_client, RestRetrievalClient, self._rest_url, "REST"),
        )

    def _numbers(self, start: int) -> Iterator[int]:
        """Yield numbers of queries until the end of the test."""
        for number in itertools.count(start):
            if time.monotonic() >= self._ends_at:
                return
            yield number % len(self._queries)

    async def _client(self, name: str, ask: Any, start: int, *, is_patient: bool = True) -> None:
        policy, timeout_s = (_PATIENT, _PATIENCE_S) if is_patient else (_IMPATIENT, 10.0)
        async with AsyncRetrievalClient(
            self._grpc_target, retry_policy=policy, timeout_s=timeout_s, **_NAMES
        ) as client:
            for number in self._numbers(start):
                try:
                    for asked, answer in await ask(client, number):
                        kind = "similar" if name == "gRPC similar" else "best"
                        self._check(name, asked, kind, answer)
                except ServingError as error:
                    self._record(name, error, is_patient=is_patient)
                await asyncio.sleep(_PAUSE_S if is_patient else 2 * _PAUSE_S)

    async def _ask_one(self, client: AsyncRetrievalClient, number: int) -> Any:
        return zip([number], await client.recommend(queries=[self._queries[number]]), strict=True)

    async def _ask_similar(self, client: AsyncRetrievalClient, number: int) -> Any:
        return [(number, await client.similar(f"item_{number}"))]

    async def _ask_batch(self, client: AsyncRetrievalClient, number: int) -> Any:
        # Without the queries that exclude: a batch goes to a single signature.
        batch = [asked for asked in range(number, len(self._queries)) if asked % 3 != 2][:8]
        asked = [self._queries[one] for one in batch]
        return zip(batch, await client.recommend(queries=asked) if batch else [], strict=True)

    def _blocking_client(self, kind: Any, address: str, name: str) -> None:
        with kind(address, retry_policy=_PATIENT, timeout_s=_PATIENCE_S, **_NAMES) as client:
            for number in self._numbers(31):
                try:
                    answer = client.recommend(queries=[self._queries[number]])[0]
                    self._check(f"{name} blocking", number, "best", answer)
                except ServingError as error:
                    self._record(name, error, is_patient=True)
                time.sleep(_PAUSE_S)

    def _check(self, client: str, number: int, kind: str, answer: Recommendations) -> None:
        expected = self._answers
        if answer.model_version is not None:  # otherwise, any version is correct
            self.versions[answer.model_version] += 1
            expected = [self._answers[answer.model_version % VARIANTS]]
        if any(_is_close(*found[number][kind], answer) for found in expected):
            self.answered[client] += 1
        else:
            self.wrong.append(f"{client}, query {number}, {kind}: {answer}"[:500])

    def _record(self, client: str, error: ServingError, *, is_patient: bool) -> None:
        text = f"{client}: {error.code_name}: {error.message[:300]}"
        if is_patient:
            self.lost.append(text)
        else:
            self.failures.append((time.monotonic(), text))


def _is_close(ids: list[str], scores: list[float], answer: Recommendations) -> bool:
    differences = map(lambda one, other: abs(one - other), scores, answer.scores)
    # Candidates with nearly equal scores may differ at the end of the list.
    return max(differences) <= _TOLERANCE and len(set(ids) ^ set(answer.candidate_ids)) <= 2
