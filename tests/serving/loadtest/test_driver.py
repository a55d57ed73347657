"""The driver against servers with known faults."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from typing import Any

import grpc

from serving.clients import messages
from serving.loadtest import LoadPlan, LoadResult, drive, drive_in_processes
from tests.serving.clients.fake_server import Answer, fake_server, recommendations

REQUEST = b""


def measure(answer: Answer, **load: Any) -> LoadResult:
    with fake_server({messages.PREDICT: answer}) as port:
        return asyncio.run(drive(LoadPlan(f"127.0.0.1:{port}", [REQUEST], **load)))


def at_once(request: Any, context: grpc.ServicerContext) -> Any:
    return recommendations("a")


class Stalling:
    """A server that answers nobody from 0.5 s to 1 s after the first request."""

    def __init__(self) -> None:
        self._stalls_at: float | None = None

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self._stalls_at is None:
            self._stalls_at = time.monotonic() + 0.5
        into_stall_s = time.monotonic() - self._stalls_at
        if 0 <= into_stall_s < 0.5:
            time.sleep(0.5 - into_stall_s)
        return recommendations("a")


def slow_share(result: LoadResult) -> float:
    return sum(latency > 0.05 for latency in result.latencies_s) / len(result.latencies_s)


def test_closed_loop_clients_send_their_next_request_after_an_answer() -> None:
    def after_20_ms(request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(0.02)
        return recommendations("a")

    result = measure(after_20_ms, concurrency=2, duration_s=0.5, warmup_s=0.2)
    assert 0 < result.throughput <= 101  # 2 clients / 20 ms; one may end at each edge
    assert min(result.latencies_s) >= 0.02
    assert abs(result.requests - result.answered_in_time) <= 2
    assert not result.errors


def test_an_open_loop_counts_the_wait_for_a_server_that_stalls() -> None:
    result = measure(Stalling(), rate=100.0, duration_s=1.5, warmup_s=0.0)
    # A third of the requests were due in the stall and waited a quarter of a second on average.
    assert slow_share(result) > 0.2
    assert max(result.latencies_s) > 0.35
    assert 90 < result.requests < 210


def test_errors_are_counted_by_code_with_their_first_message() -> None:
    calls = iter(range(10**9))

    def every_second_fails(request: Any, context: grpc.ServicerContext) -> Any:
        if next(calls) % 2:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        return recommendations("a")

    result = measure(every_second_fails, concurrency=1, duration_s=0.3, warmup_s=0.0)
    assert set(result.errors) == {"RESOURCE_EXHAUSTED"}
    assert abs(result.errors.total() - result.answered_in_time) <= 1
    assert len(result.latencies_s) == result.requests - result.errors.total()
    assert result.messages == {"RESOURCE_EXHAUSTED": "the queue is full"}


def test_a_request_that_times_out_counts_with_its_wait() -> None:
    def too_late(request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(0.3)
        return recommendations("a")

    result = measure(too_late, rate=20.0, duration_s=0.5, warmup_s=0.0, timeout_s=0.1)
    assert set(result.errors) == {"DEADLINE_EXCEEDED"}
    assert result.requests == result.errors.total() == len(result.latencies_s)
    assert min(result.latencies_s) >= 0.1
    assert result.answered_in_time == 0


def test_an_absent_server_is_unavailable_and_does_not_make_the_driver_spin() -> None:
    plan = LoadPlan("127.0.0.1:1", [REQUEST], concurrency=1, duration_s=0.3, warmup_s=0.0)
    result = asyncio.run(drive(plan))
    assert set(result.errors) == {"UNAVAILABLE"}
    assert 0 < result.requests <= 31


def test_requests_during_the_warm_up_do_not_count() -> None:
    asked = []

    def remember(request: Any, context: grpc.ServicerContext) -> Any:
        asked.append(time.monotonic())
        return recommendations("a")

    result = measure(remember, concurrency=1, duration_s=0.2, warmup_s=0.2)
    assert 0 < result.requests < len(asked)


def test_two_processes_share_one_load() -> None:
    with fake_server({messages.PREDICT: at_once}) as port:
        plan = LoadPlan(f"127.0.0.1:{port}", [REQUEST] * 3, rate=200.0, duration_s=0.5)
        result = drive_in_processes(plan, 2)
    assert 50 < result.requests < 150  # 100 expected, a Poisson number
    assert result.duration_s == 0.5


def test_the_shares_of_drivers_add_up() -> None:
    plan = LoadPlan("host:1", [b"1", b"2", b"3", b"4"], concurrency=5, duration_s=1.0)
    parts = [plan.share(index, 3) for index in range(3)]
    assert [part.concurrency for part in parts] == [2, 2, 1]
    assert [part.requests[0] for part in parts] == [b"1", b"2", b"3"]
    rated = LoadPlan("host:1", [b"1"], rate=9.0, duration_s=1.0)
    assert [rated.share(index, 3).rate for index in range(3)] == [3.0, 3.0, 3.0]
    assert len({rated.share(index, 3).seed for index in range(3)}) == 3


def test_quantiles_use_the_nearest_rank() -> None:
    # 1 to 1,000 ms: 500 of 1,000 do not exceed 500 ms, 999 of 1,000 not 999 ms.
    result = LoadResult(2.0, 1000, array("d", [n / 1000 for n in range(1000, 0, -1)]))
    summary = result.to_json()
    assert summary["latency_ms"] == {
        "p50": 500.0, "p90": 900.0, "p99": 990.0, "p99.9": 999.0, "mean": 500.5, "max": 1000.0,
    }  # fmt: skip
    assert summary["throughput_per_s"] == 500.0
    assert LoadResult(1.0).to_json()["latency_ms"]["p99"] is None


def test_results_of_drivers_are_merged() -> None:
    parts = [
        LoadResult(1.0, 2, array("d", [0.1, 0.2]), Counter(UNAVAILABLE=1), {"UNAVAILABLE": "a"}),
        LoadResult(1.0, 1, array("d", [0.3]), Counter(UNAVAILABLE=2, INTERNAL=1)),
    ]
    parts[1].driver_busy = 0.9
    merged = LoadResult.merge(parts)
    assert (merged.answered_in_time, merged.requests, merged.driver_busy) == (3, 7, 0.9)
    assert merged.errors == Counter(UNAVAILABLE=3, INTERNAL=1)
    assert sorted(merged.latencies_s) == [0.1, 0.2, 0.3]
