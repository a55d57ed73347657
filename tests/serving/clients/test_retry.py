from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import grpc
import pytest

from serving.clients import (
    AsyncRetrievalClient,
    RestRetrievalClient,
    RetrievalClient,
    RetryPolicy,
    messages,
    messages_pb2,
)
from serving.clients.blocking_client import BlockingClient
from serving.clients.retry import Deadline, Exchange, send_with_retries
from serving.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
)
from tests.serving.clients.fake_server import fake_rest_server, fake_server

FAST = RetryPolicy(max_attempts=3, first_pause_s=0.001)


class Flaky(BlockingClient):
    """A client whose requests fail with each of `errors`, then succeed."""

    def __init__(self, *errors: ServingError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def close(self) -> None:
        pass

    def _send(self, request: Any, timeout_s: float) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def ask(flaky: Flaky, policy: RetryPolicy, timeout_s: float) -> str:
    exchange: Exchange[str] = Exchange(None, str)
    answer: str = flaky._run(send_with_retries(exchange, policy, Deadline(timeout_s)))
    return answer


def test_unavailable_errors_are_retried() -> None:
    flaky = Flaky(UnavailableError("1"), UnavailableError("2"))
    assert ask(flaky, FAST, 5.0) == "answer"
    assert flaky.calls == 3


def test_the_last_error_is_raised_when_the_attempts_are_used_up() -> None:
    flaky = Flaky(*[UnavailableError(str(number)) for number in range(5)])
    with pytest.raises(UnavailableError, match="2"):
        ask(flaky, FAST, 5.0)


@pytest.mark.parametrize(
    "kind", [DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError]
)
def test_other_errors_are_raised_at_once(kind: type[ServingError]) -> None:
    flaky = Flaky(kind("no"))
    with pytest.raises(kind):
        ask(flaky, FAST, 5.0)
    assert flaky.calls == 1


def test_a_pause_longer_than_the_time_left_is_not_started() -> None:
    flaky = Flaky(UnavailableError("1"))
    started_at = time.monotonic()
    with pytest.raises(UnavailableError):
        ask(flaky, RetryPolicy(first_pause_s=60.0, max_pause_s=60.0), 1.0)
    assert time.monotonic() - started_at < 1.0


def test_pauses_double_up_to_a_limit_and_differ() -> None:
    policy = RetryPolicy(first_pause_s=1.0, max_pause_s=3.0)
    for failures, longest in ((1, 1.0), (2, 2.0), (3, 3.0), (5000, 3.0)):
        pauses = {policy.pause_s(failures) for _ in range(20)}
        assert len(pauses) > 1
        assert all(longest / 2 <= pause <= longest for pause in pauses)


def status_with(failures: list[grpc.StatusCode]) -> dict[str, Any]:
    """A server's GetModelStatus, which fails with each of `failures`, then answers."""

    def get_status(request: Any, context: grpc.ServicerContext) -> Any:
        if failures:
            context.abort(failures.pop(0), "not now")
        return messages_pb2.GetModelStatusResponse()

    return {messages.GET_MODEL_STATUS: get_status}


def test_the_grpc_client_survives_two_failures_but_not_a_full_queue() -> None:
    failures = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
    with (
        fake_server(status_with(failures)) as port,
        RetrievalClient(f"127.0.0.1:{port}", retry_policy=FAST) as client,
    ):
        assert client.status() == []
        failures += [grpc.StatusCode.RESOURCE_EXHAUSTED]
        with pytest.raises(ResourceExhaustedError, match="not now"):
            client.status()


def test_the_asyncio_client_does_not_block_the_loop_while_it_retries() -> None:
    async def ask(port: int) -> int:
        policy = RetryPolicy(max_attempts=3, first_pause_s=0.2)
        turns_of_others = 0
        async with AsyncRetrievalClient(f"127.0.0.1:{port}", retry_policy=policy) as client:
            asking = asyncio.ensure_future(client.status())
            while not asking.done():
                await asyncio.sleep(0.001)
                turns_of_others += 1
            assert await asking == []
        return turns_of_others

    # At least 0.3 s of pauses; the answers themselves take some milliseconds.
    with fake_server(status_with([grpc.StatusCode.UNAVAILABLE] * 2)) as port:
        assert asyncio.run(ask(port)) > 40


def test_the_default_retries_find_a_restarted_server() -> None:
    with fake_server(status_with([])) as port:
        client = RetrievalClient(f"127.0.0.1:{port}")
        assert client.status() == []
    with client:
        with pytest.raises(UnavailableError):
            client.status()
        with fake_server(status_with([]), port):
            assert client.status() == []


def test_the_rest_client_survives_a_dropped_connection_and_a_busy_proxy() -> None:
    statuses = [200, 0, 503]
    with (
        fake_rest_server(statuses) as port,
        RestRetrievalClient(f"http://127.0.0.1:{port}", retry_policy=FAST) as client,
    ):
        assert client.status() == []
        assert client.status() == []
        statuses += [503, 503, 503]
        with pytest.raises(UnavailableError, match="busy"):
            client.status()


@pytest.mark.parametrize(
    "body",
    [b"[]", b"1", b'{"model_version_status": 1}', b'{"model_version_status": [{"version": "x"}]}'],
)
def test_a_json_answer_of_another_format_is_an_internal_error(body: bytes) -> None:
    with (
        fake_rest_server(body=body) as port,
        RestRetrievalClient(f"http://127.0.0.1:{port}", retry_policy=FAST) as client,
    ):
        for ask in (client.status, client.metadata):
            with pytest.raises(InternalError, match="format of TensorFlow Serving's REST API"):
                ask()


@pytest.mark.parametrize(
    "options",
    [{"max_attempts": 0}, {"max_attempts": "4"}, {"first_pause_s": -1}, {"max_pause_s": math.nan}],
)
def test_a_policy_that_cannot_be_followed_is_refused(options: dict[str, Any]):
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        RetryPolicy(**options)
