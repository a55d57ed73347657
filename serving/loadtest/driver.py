"""Load generation in this process or in several new ones."""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import grpc

from serving.clients.grpc_client import as_serving_error, make_channel
from serving.clients.messages import PREDICT
from serving.errors import DeadlineExceededError, ServingError
from serving.loadtest.load import LoadPlan, LoadResult

_PAUSE_AFTER_ERROR_S = 0.01
_START_TIMEOUT_S = 60.0
_barrier: Any = None  # set when a load process starts


def drive_in_processes(plan: LoadPlan, processes: int = 1) -> LoadResult:
    """Send the requests of `plan` to its server from at most `processes` new processes.

    There, the threads and garbage collection of the caller, such as TensorFlow's, do not affect
    the measurement.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    count = min(processes, plan.concurrency or processes)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    with ProcessPoolExecutor(count, context, _set_barrier, (barrier,)) as pool:
        parts = [plan.share(index, count) for index in range(count)]
        return LoadResult.merge(list(pool.map(_drive_with_others, parts)))


def _set_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _drive_with_others(plan: LoadPlan) -> LoadResult:
    _barrier.wait(_START_TIMEOUT_S)  # until all processes have started
    return asyncio.run(drive(plan))


async def drive(plan: LoadPlan) -> LoadResult:
    """Send the requests of `plan` to its server from this event loop."""
    count = min(plan.connections, plan.concurrency or plan.connections)
    channels = [make_channel(grpc.aio, plan.target, plan.tls) for _ in range(count)]
    gc.collect()
    gc.freeze()
    try:
        return await _Load(plan, channels).run()
    finally:
        gc.unfreeze()
        for channel in channels:
            await channel.close()


class _Load:
    """Sends requests, and counts answers, latencies and errors."""

    def __init__(self, plan: LoadPlan, channels: list[grpc.aio.Channel]) -> None:
        self._plan = plan
        self._requests = itertools.cycle(plan.requests)
        # Without a serializer, the calls take and return bytes.
        self._calls = itertools.cycle([channel.unary_unary(PREDICT) for channel in channels])
        self._result = LoadResult(plan.duration_s)
        self._begins_at = time.monotonic() + plan.warmup_s
        self._ends_at = self._begins_at + plan.duration_s

    async def run(self) -> LoadResult:
        """Send requests during warm-up and measurement, and wait for the last answers."""
        busy = asyncio.ensure_future(self._measure_own_share())
        if self._plan.concurrency is None:
            await self._send_at_rate(self._plan.rate or 0.0)
        else:
            await asyncio.gather(*(self._client() for _ in range(self._plan.concurrency)))
        self._result.driver_busy = await busy
        return self._result

    async def _client(self) -> None:
        """Closed loop: send the next request after each answer."""
        while (now := time.monotonic()) < self._ends_at:
            if not await self._send(now):
                # If the server is down, calls fail within microseconds.
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)

    async def _send_at_rate(self, rate: float) -> None:
        """Open loop: send requests that arrive independently of the answers."""
        in_progress: set[asyncio.Task[bool]] = set()
        random_numbers = random.Random(self._plan.seed)
        due_at = time.monotonic()
        while (due_at := due_at + random_numbers.expovariate(rate)) < self._ends_at:
            early_s = due_at - time.monotonic()
            # If it is behind schedule, it must still let other tasks read answers now and then.
            if early_s > 0 or len(in_progress) % 64 == 0:
                await asyncio.sleep(max(early_s, 0.0))
            task = asyncio.ensure_future(self._send(due_at))
            in_progress.add(task)
            task.add_done_callback(in_progress.discard)
        await asyncio.gather(*in_progress)

    async def _send(self, due_at: float) -> bool:
        """Send the next request, which was due at `due_at`; return whether it succeeded."""
        left_s = due_at + self._plan.timeout_s - time.monotonic()
        if left_s <= 0:
            late = DeadlineExceededError("The load generator could not send it in time")
            self._count_failure(due_at, late)
            return False
        try:
            await next(self._calls)(next(self._requests), timeout=left_s)
        except grpc.RpcError as error:
            self._count_failure(due_at, as_serving_error(error))
            return False
        now = time.monotonic()
        if self._is_measured(due_at):
            self._result.latencies_s.append(now - due_at)
        if self._is_measured(now):
            self._result.answered_in_time += 1
        return True

    def _count_failure(self, due_at: float, error: ServingError) -> None:
        if not self._is_measured(due_at):
            return
        self._result.errors[error.code_name] += 1
        self._result.messages.setdefault(error.code_name, error.message)
        if isinstance(error, DeadlineExceededError):
            # The user has waited this long. Latencies of other errors do not count: they can be
            # very short and would make the results look better.
            self._result.latencies_s.append(time.monotonic() - due_at)

    def _is_measured(self, moment: float) -> bool:
        return self._begins_at <= moment < self._ends_at

    async def _measure_own_share(self) -> float:
        await asyncio.sleep(self._begins_at - time.monotonic())
        began_at, used_s = time.monotonic(), time.thread_time()
        await asyncio.sleep(self._ends_at - time.monotonic())
        return (time.thread_time() - used_s) / (time.monotonic() - began_at)
