"""The batcher as the event loop sees it.

Receiving a request takes the loop as long as a small model takes to answer it. If each were passed
on as soon as it was read, a batch thread would run the first alone while its neighbours are still
being read: with sixteen clients the mean batch had 1.7 requests. So while more than one request is
under way, they are passed on together, once the loop has nothing else at hand (then 4 to 6). A lone
request is passed on at once, and no timer is ever set.
"""

from __future__ import annotations

import asyncio
import time

from serving.model_server.batching import Batcher, Call, Receiver
from serving.model_server.tensor_codec import Array

# A call passes the loop in several steps, so one turn without a new one says little.
_TURNS_WITHOUT_ARRIVAL = 4
# After sixteen at once, it takes 23 arrivals of which each found itself alone to believe it.
_FORGETTING, _ALONE = 0.9, 1.5
# A loop that is never done with other work must not hold requests back for ever.
_LONGEST_GATHERING_S = 0.002


class AsyncBatcher:
    """Queues calls from the running event loop.

    Args:
        batcher: Does the work.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Call] = []
        self._is_gathering = False
        self._gathering_since_s = 0.0
        self._num_under_way = 0
        self._num_groups_out = 0
        self._usual = 0.0  # Requests under way at once, of late.
        self._receiver: Receiver = self._receive  # One object, by which calls are grouped.

    async def run(self, call: Call) -> list[Array]:
        """Queue a call and wait for its results.

        Raises:
            ServingError: As the run ends.
        """
        call.future = self._loop.create_future()
        self._gathered.append(call)
        self._num_under_way += 1
        self._usual = max(self._num_under_way, self._usual * _FORGETTING)
        if self._usual < _ALONE:
            self._pass_on()
        else:
            self._start_to_gather()
        try:
            await call.future
        except asyncio.CancelledError:
            call.is_abandoned = True
            raise
        finally:
            self._num_under_way -= 1
        if call.error:
            raise call.error
        return call.results

    def _start_to_gather(self) -> None:
        # While every batch thread is busy, all that comes can be gathered.
        if self._is_gathering or self._num_groups_out >= self._batcher.num_threads:
            return
        self._is_gathering = True
        self._gathering_since_s = time.monotonic()
        self._loop.call_soon(self._gather, len(self._gathered), 0)

    def _gather(self, seen: int, turns: int) -> None:
        gathered = len(self._gathered)
        turns = turns + 1 if gathered == seen else 0
        if (
            turns < _TURNS_WITHOUT_ARRIVAL
            and gathered < self._batcher.max_batch_rows
            and time.monotonic() - self._gathering_since_s < _LONGEST_GATHERING_S
        ):
            self._loop.call_soon(self._gather, gathered, turns)
            return
        self._is_gathering = False
        if gathered:
            self._pass_on()

    def _pass_on(self) -> None:
        calls, self._gathered = self._gathered, []
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
        if self._gathered:
            self._start_to_gather()


class _Group:
    """Calls that were passed on together."""

    __slots__ = ("num_out",)

    def __init__(self, size: int) -> None:
        self.num_out = size
