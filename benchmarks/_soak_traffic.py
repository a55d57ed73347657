"""Clients of the soak test, which send requests continuously and check every answer."""

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
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

PATIENT = RetryPolicy(max_attempts=1000, first_pause_s=0.05, max_pause_s=0.5)
IMPATIENT = RetryPolicy(max_attempts=1)
_PATIENCE_S = 90.0
_PAUSE_S = 0.01
_TOLERANCE = 1e-3
_NAMES = {"query_id_name": "user_id", "candidate_id_name": "item_id"}


@dataclass
class Tally:
    """Results of the well-formed requests.

    Attributes:
        answered: Number of correct answers by kind of client.
        wrong: Descriptions of the wrong answers.
        lost: Descriptions of the failed requests of clients with retries.
        failures: Time (of `time.monotonic`) and description of each failed request of the client
            without retries.
        versions: Number of answers by model version, where the API returns the version.
    """

    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    versions: Counter[int] = field(default_factory=Counter)


class Exam:
    """Queries and their correct answers.

    Args:
        folder: The folder that `_soak_model.py` wrote.
        variants: The number of model variants. Version `v` contains variant `v % variants`.
    """

    def __init__(self, folder: Path, variants: int) -> None:
        content = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
        self._answers = content["answers"]
        self._variants = variants
        self.queries = [
            Query(
                query["user_id"],
                query["history"],
                exclude=query["history"] if query["excludes"] else (),
            )
            for query in content["queries"]
        ]

    def is_right(self, number: int, kind: str, answer: Recommendations) -> bool:
        """Return whether an answer is correct for its version, or for any version if unknown."""
        if answer.model_version is None:
            return any(self._is(right[number][kind], answer) for right in self._answers)
        return self._is(self._answers[answer.model_version % self._variants][number][kind], answer)

    @staticmethod
    def _is(right: dict[str, Any], answer: Recommendations) -> bool:
        close = all(
            abs(one - other) <= _TOLERANCE
            for one, other in zip(right["scores"], answer.scores, strict=True)
        )
        # Candidates with nearly equal scores may differ at the end of the list.
        return close and len(set(right["ids"]) ^ set(answer.candidate_ids)) <= 2


class Traffic:
    """The clients of the soak test and their joint results.

    Args:
        exam: The queries and answers.
        grpc_target: The server's gRPC address.
        rest_url: The server's REST URL.
        ends_at: The end of the test, as a time of `time.monotonic`.
    """

    def __init__(self, exam: Exam, grpc_target: str, rest_url: str, ends_at: float) -> None:
        self._exam = exam
        self._grpc_target = grpc_target
        self._rest_url = rest_url
        self._ends_at = ends_at
        self.tally = Tally()

    async def run(self) -> None:
        """Send requests from all clients until the end of the test."""
        await asyncio.gather(
            *(self._asyncio_client(client_index) for client_index in range(4)),
            self._impatient_client(),
            asyncio.to_thread(self._blocking_client, RetrievalClient, self._grpc_target, "gRPC"),
            asyncio.to_thread(self._blocking_client, RestRetrievalClient, self._rest_url, "REST"),
        )

    def _numbers(self, start: int) -> Any:
        return itertools.cycle(range(start, start + len(self._exam.queries)))

    async def _asyncio_client(self, client_index: int) -> None:
        queries = self._exam.queries
        async with AsyncRetrievalClient(
            self._grpc_target, retry_policy=PATIENT, timeout_s=_PATIENCE_S, **_NAMES
        ) as client:
            for start in self._numbers(17 * client_index):
                if time.monotonic() >= self._ends_at:
                    return
                number = start % len(queries)
                try:
                    if client_index == 0:
                        # Without the queries that exclude: a batch goes to a single signature.
                        batch = [n for n in range(number, len(queries)) if n % 3 != 2][:8]
                        asked = [queries[n] for n in batch]
                        for n, answer in zip(
                            batch, await client.recommend(queries=asked), strict=True
                        ):
                            self._check("gRPC batch", n, "best", answer)
                    elif client_index == 1:
                        answer = await client.similar(f"item {number}")
                        self._check("gRPC similar", number, "similar", answer)
                    else:
                        answer = (await client.recommend(queries=[queries[number]]))[0]
                        self._check("gRPC asyncio", number, "best", answer)
                except ServingError as error:
                    self._lose("gRPC asyncio", error)
                await asyncio.sleep(_PAUSE_S)

    async def _impatient_client(self) -> None:
        """Send requests without retries, to detect failures outside of restarts."""
        queries = self._exam.queries
        async with AsyncRetrievalClient(
            self._grpc_target, retry_policy=IMPATIENT, timeout_s=10.0, **_NAMES
        ) as client:
            for start in self._numbers(5):
                if time.monotonic() >= self._ends_at:
                    return
                number = start % len(queries)
                try:
                    answer = (await client.recommend(queries=[queries[number]]))[0]
                    self._check("gRPC without retries", number, "best", answer)
                except ServingError as error:
                    failed = f"{error.code_name}: {error.message[:200]}"
                    self.tally.failures.append((time.monotonic(), failed))
                await asyncio.sleep(2 * _PAUSE_S)

    def _blocking_client(self, kind: Any, address: str, name: str) -> None:
        queries = self._exam.queries
        with kind(address, retry_policy=PATIENT, timeout_s=_PATIENCE_S, **_NAMES) as client:
            for start in self._numbers(31):
                if time.monotonic() >= self._ends_at:
                    return
                number = start % len(queries)
                try:
                    answer = client.recommend(queries=[queries[number]])[0]
                    self._check(f"{name} blocking", number, "best", answer)
                except ServingError as error:
                    self._lose(name, error)
                time.sleep(_PAUSE_S)

    def _check(self, client: str, number: int, kind: str, answer: Recommendations) -> None:
        if answer.model_version is not None:
            self.tally.versions[answer.model_version] += 1
        if self._exam.is_right(number, kind, answer):
            self.tally.answered[client] += 1
        else:
            self.tally.wrong.append(f"{client}, query {number}, {kind}: {answer}"[:500])

    def _lose(self, client: str, error: ServingError) -> None:
        self.tally.lost.append(f"{client}: {error.code_name}: {error.message[:300]}")
