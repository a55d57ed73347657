"""When calls of the event loop reach the batcher: at once, and together where they are together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from serving.errors import InvalidArgumentError, UnavailableError
from serving.server.async_batching import AsyncBatcher
from serving.server.batching import Batcher, Call, Receiver


class Thread:
    """A batcher with one thread, which is done with a group when the test says so."""

    num_threads = 1

    def __init__(self, max_enqueued_calls: int = 100) -> None:
        self.max_enqueued_calls = max_enqueued_calls
        self.num_waiting = 0
        self.groups: list[list[Call]] = []
        self._receiver: Receiver | None = None

    def submit(self, calls: Sequence[Call], receiver: Receiver) -> None:
        self.groups.append(list(calls))
        self._receiver = receiver

    def finish(self, number: int) -> None:
        assert self._receiver is not None
        self._receiver(self.groups[number])


def call() -> Call:
    signature: Any = None
    return Call(signature, [], ())


async def turn() -> None:
    """Lets the loop run what is ready, once."""
    await asyncio.sleep(0)


def asking(batcher: AsyncBatcher, count: int) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(batcher.run(call())) for _ in range(count)]


def sizes(thread: Thread) -> list[int]:
    return [len(group) for group in thread.groups]


async def queues_what_one_turn_brought() -> None:
    thread = Thread()
    batcher = AsyncBatcher(cast(Batcher, thread))
    first = asking(batcher, 3)
    await turn()  # The three arrive.
    await turn()
    assert sizes(thread) == [3]
    # The thread is busy: what comes now, turn after turn, shares the next run.
    later = asking(batcher, 1)
    for _ in range(5):
        await turn()
        later += asking(batcher, 1)
    await turn()
    assert sizes(thread) == [3]
    thread.finish(0)
    assert await asyncio.gather(*first) == [[], [], []]
    await turn()
    assert sizes(thread) == [3, 6]
    thread.finish(1)
    await asyncio.gather(*later)
    # And nothing is left that would hold up the next one.
    (last,) = asking(batcher, 1)
    await turn()
    await turn()
    assert sizes(thread) == [3, 6, 1]
    thread.finish(2)
    await last


async def tells_errors_and_who_went_away() -> None:
    thread = Thread()
    batcher = AsyncBatcher(cast(Batcher, thread))
    gone, wrong = asking(batcher, 2)
    await turn()
    await turn()
    gone.cancel()
    await turn()
    assert [given.is_abandoned for given in thread.groups[0]] == [True, False]
    thread.groups[0][1].error = InvalidArgumentError("wrong")
    thread.finish(0)
    with pytest.raises(InvalidArgumentError):
        await wrong
    asking(batcher, 1)
    await turn()
    await turn()
    assert sizes(thread) == [2, 1]
    thread.finish(1)
    await turn()


async def refuses_at_once_what_there_is_no_room_for() -> None:
    thread = Thread(max_enqueued_calls=2)
    batcher = AsyncBatcher(cast(Batcher, thread))
    (running,) = asking(batcher, 1)
    await turn()
    await turn()
    # The thread is busy: two wait for it here, the others hear so without waiting.
    later = asking(batcher, 5)
    await turn()
    assert [task.done() for task in later] == [False, False, True, True, True]
    for refused in later[2:]:
        with pytest.raises(UnavailableError, match="to which this task was submitted is full"):
            refused.result()
    thread.finish(0)
    await running
    await turn()
    # What waits in the batcher itself, such as requests over REST, takes room as well.
    thread.num_waiting = 2
    (no_room,) = asking(batcher, 1)
    await turn()
    assert isinstance(no_room.exception(), UnavailableError)
    thread.num_waiting = 0
    thread.finish(1)
    assert await asyncio.gather(*later[:2]) == [[], []]
    assert sizes(thread) == [1, 2]


def test_what_arrives_together_is_queued_together_and_nothing_waits() -> None:
    asyncio.run(queues_what_one_turn_brought())


def test_a_group_ends_with_its_last_call_whatever_became_of_it() -> None:
    asyncio.run(tells_errors_and_who_went_away())


def test_the_queue_has_an_end_also_while_the_threads_are_busy() -> None:
    asyncio.run(refuses_at_once_what_there_is_no_room_for())
