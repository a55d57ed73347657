"""The batcher as the event loop sees it.

Calls are queued once a turn of the loop, so those that one look at the sockets brought reach the
batcher together. While every batch thread is busy they stay here, and go all at once as soon as one
is free: the batcher would not run them earlier, and would be told of each by itself. Nothing waits
for requests that are not there yet, and no timer is ever set.
"""

from __future__ import annotations

import asyncio

from serving.server.batching import Batcher, Call, Receiver, queue_full
from serving.server.tensor_codec import Array


class AsyncBatcher:
    """Queues calls from the running event loop.

    Args:
        batcher: Does the work.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._loop = asyncio.get_running_loop()
        self._arrived: list[Call] = []
        self._will_pass_on = False
        self._num_groups_out = 0
        self._receiver: Receiver = self._receive  # One object, by which calls are grouped.

    async def run(self, call: Call) -> list[Array]:
        """Queue a call and wait for its results.

        Raises:
            UnavailableError: If too many wait already, here or in the batcher.
            ServingError: As the run ends.
        """
        batcher = self._batcher
        if len(self._arrived) + batcher.num_waiting >= batcher.max_enqueued_calls:
            raise queue_full()
        call.future = self._loop.create_future()
        self._arrived.append(call)
        self._pass_on_soon()
        try:
            await call.future
        except asyncio.CancelledError:
            call.is_abandoned = True
            raise
        if call.error:
            raise call.error
        return call.results

    def _pass_on_soon(self) -> None:
        if not self._will_pass_on and self._num_groups_out < self._batcher.num_threads:
            self._will_pass_on = True
            self._loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._will_pass_on = False
        calls, self._arrived = self._arrived, []
        self._num_groups_out += 1
        group = _Group(len(calls))
        for call in calls:
            call.group = group
        self._batcher.submit(calls, self._receiver)

    def _receive(self, calls: list[Call]) -> None:
        # One wake-up of the loop for all calls of a run.
        self._loop.call_soon_threadsafe(self._wake, calls)

    def _wake(self, calls: list[Call]) -> None:
        for call in calls:
            call.group.num_out -= 1
            if not call.group.num_out:
                self._num_groups_out -= 1
            if not call.future.done():
                call.future.set_result(None)
        if self._arrived:
            self._pass_on_soon()


class _Group:
    """Calls that were passed on together."""

    __slots__ = ("num_out",)

    def __init__(self, size: int) -> None:
        self.num_out = size
