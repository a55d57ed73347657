"""Sends requests on one event loop and takes the time of each."""

from __future__ import annotations

import abc
import asyncio
import gc
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc

from serving.clients import wire
from serving.clients.grpc_protocol import make_channel
from serving.errors import code_name
from serving.loadtest.plan import LoadPlan
from serving.loadtest.result import LoadResult

_DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
_PAUSE_AFTER_ERROR_S = 0.01


async def drive(plan: LoadPlan) -> LoadResult:
    """Put the load of `plan` on its server.

    Requests are bytes and answers are left as bytes: what is measured is the server, not the
    encoding of its client.
    """
    channels = [
        make_channel(grpc.aio, plan.target, plan.tls)
        for _ in range(min(plan.connections, plan.concurrency or plan.connections))
    ]
    calls = [channel.unary_unary(wire.PREDICT) for channel in channels]
    gc.collect()
    gc.freeze()
    try:
        load = _OpenLoop(plan, calls) if plan.concurrency is None else _ClosedLoop(plan, calls)
        return await load.run()
    finally:
        gc.unfreeze()
        await asyncio.gather(*(channel.close() for channel in channels))


class _Load(abc.ABC):
    """What both kinds of load share: one request, and its place in the result."""

    def __init__(self, plan: LoadPlan, calls: list[Callable[..., Awaitable[bytes]]]) -> None:
        self._plan = plan
        self._requests = itertools.cycle(plan.requests)
        self._calls = itertools.cycle(calls)
        self._result = LoadResult(plan.duration_s)
        self._begins_at = time.monotonic() + plan.warmup_s
        self._ends_at = self._begins_at + plan.duration_s

    async def run(self) -> LoadResult:
        """Warm up, measure, wait for the last answers."""
        watch = asyncio.ensure_future(self._watch_own_time())
        await self._send_all()
        await watch
        return self._result

    @abc.abstractmethod
    async def _send_all(self) -> None:
        """Sends requests until the time is over."""

    async def _watch_own_time(self) -> None:
        await asyncio.sleep(self._begins_at - time.monotonic())
        began_at, computed = time.monotonic(), time.thread_time()
        await asyncio.sleep(self._ends_at - time.monotonic())
        self._result.driver_busy = (time.thread_time() - computed) / (time.monotonic() - began_at)

    async def _ask(self, due_at: float) -> bool:
        """Send the next request, due at a time, and return whether it was answered."""
        left_s = due_at + self._plan.timeout_s - time.monotonic()
        if left_s <= 0:  # It could not even be sent in time.
            self._failed(due_at, _DEADLINE_EXCEEDED, "not sent in time")
            return False
        try:
            await next(self._calls)(next(self._requests), timeout=left_s)
        except grpc.RpcError as error:
            self._failed(due_at, error.code(), error.details() or "")
            return False
        now = time.monotonic()
        if self._counts(due_at):
            self._result.latencies_s.append(now - due_at)
        if self._begins_at <= now < self._ends_at:
            self._result.answered_in_time += 1
        return True

    def _failed(self, due_at: float, code: Any, message: str) -> None:
        if not self._counts(due_at):
            return
        name = code_name(code.value[0])
        self._result.errors[name] += 1
        self._result.messages.setdefault(name, message)
        if code is _DEADLINE_EXCEEDED:
            # Whoever asked has waited that long; a refusal, which is quick, would flatter.
            self._result.latencies_s.append(time.monotonic() - due_at)

    def _counts(self, due_at: float) -> bool:
        return self._begins_at <= due_at < self._ends_at


class _ClosedLoop(_Load):
    """So many clients, each of which asks again when it is answered."""

    async def _send_all(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._plan.concurrency or 0)))

    async def _client(self) -> None:
        while (now := time.monotonic()) < self._ends_at:
            if not await self._ask(now):
                # A server that is away refuses within microseconds: do not spin.
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)


class _OpenLoop(_Load):
    """Requests come when they come, whether the ones before were answered or not."""

    async def _send_all(self) -> None:
        under_way: set[asyncio.Task[bool]] = set()
        for due_at in self._arrivals():
            early_s = due_at - time.monotonic()
            # Also when late now and then: answers must be read.
            if early_s > 0 or len(under_way) % 64 == 0:
                await asyncio.sleep(max(early_s, 0.0))
            task = asyncio.ensure_future(self._ask(due_at))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    def _arrivals(self) -> Iterator[float]:
        chance = random.Random(self._plan.seed)
        due_at = time.monotonic()
        while True:
            due_at += chance.expovariate(self._plan.rate or 0.0)
            if due_at >= self._ends_at:
                return
            yield due_at
