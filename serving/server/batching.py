"""The batcher, which computes several queued requests in one run of the model.

Requests that arrive during a run are queued and share the next run, which saves the fixed cost of
separate runs. A lone request never waits for others; several wait only while others keep arriving.
Under load, the runs use threads, so that the event loop reads further requests in the meantime. If
requests are rare and their runs are short, they run in the event loop, because the change to
another thread and back would take longer.

Requests share a run only if this does not change their results. They must have the same version,
signature and outputs, and the same shapes except for the first dimension, along which they are
concatenated. If a shared run fails, its requests run one by one, so that only the request that
causes the error gets it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from serving.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ServingError,
    UnavailableError,
)
from serving.server.predict import Signature, as_serving_error
from serving.server.tensor_codec import Array

# A run takes place in the event loop if it is expected to take at most so long, and at most this
# share of the mean time between requests.
_SHORT_RUN_S = 0.005
_SMALL_SHARE = 0.33
# gRPC accepts about one request per iteration of the event loop. If several requests are queued, a
# run starts after so many iterations without another one, or when so many requests are queued. With
# 16 clients on 2 CPUs, this answers a third more requests per second than an immediate start.
_IDLE_TURNS = 6
_LARGE_BATCH = 16
# Weight of the newest time between two requests in their mean.
_INTERVAL_WEIGHT = 0.1

Observer = Callable[[int, int, Sequence[float]], None]
"""Called for each run with its requests, its rows, and the seconds that each request waited."""


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """Sizes and limits of the batches.

    Attributes:
        max_batch_rows: Maximum number of rows of a shared run; a larger request runs alone.
        max_request_rows: Maximum number of rows of a request; larger ones are rejected. None for
            no limit.
        max_waiting: Maximum number of requests in the queue; further ones are rejected.
        num_threads: Maximum number of runs at the same time.
        pads_inputs: Whether requests whose shapes differ after the first dimension share a run;
            smaller inputs are padded with "" or 0.
    """

    is_enabled: bool = True
    max_batch_rows: int = 128
    max_request_rows: int | None = None
    max_waiting: int = 10_000
    # Half of the CPUs compute; the other half read requests and write responses. With one thread
    # per CPU, there would always be a free thread, so requests would never share a run.
    num_threads: int = max(1, (os.cpu_count() or 1) // 2)
    pads_inputs: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class _Call:
    """A request in the queue, and its results or error."""

    signature: Signature
    feeds: Sequence[Array]
    outputs: tuple[str, ...]
    deadline_s: float | None
    future: asyncio.Future[list[Array]]
    enqueued_s: float
    rows: int
    results: list[Array] | None = None
    error: ServingError | None = None

    def key(self, options: BatchingOptions) -> Hashable:
        """Return a key that is equal for requests that may share a run."""
        # All inputs must have the same number of rows. The model may broadcast an input of one
        # row over its own request, but not after concatenation with the rows of other requests.
        if not (
            options.is_enabled
            and self.rows
            and self.signature.is_batchable
            and all(feed.ndim and feed.shape[0] == self.rows for feed in self.feeds)
        ):
            return id(self)
        shapes = [feed.ndim if options.pads_inputs else feed.shape[1:] for feed in self.feeds]
        return id(self.signature), self.outputs, tuple(shapes)


class Batcher:
    """A queue of requests, and the threads that run them, for use from the current event loop.

    Example:
        batcher = Batcher(BatchingOptions())
        results = await batcher.run(signature, feeds, signature.outputs)
    """

    def __init__(self, options: BatchingOptions, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        # Queued requests by key, in the order of their oldest one.
        self._waiting: OrderedDict[Hashable, deque[_Call]] = OrderedDict()
        self._num_waiting = 0
        self._num_busy = 0
        self._will_start = False
        self._is_stopped = False
        self._requested_s = time.monotonic()
        self._mean_interval_s = 0.0
        # A ThreadPoolExecutor takes 20 us more for each run.
        self._runs: queue.SimpleQueue[list[_Call] | None] = queue.SimpleQueue()
        for number in range(options.num_threads):
            threading.Thread(target=self._work, name=f"batch_{number}", daemon=True).start()

    async def run(
        self,
        signature: Signature,
        feeds: Sequence[Array],
        outputs: tuple[str, ...],
        deadline_s: float | None = None,
    ) -> list[Array]:
        """Queue a request, wait until it has run, and return one array for each of `outputs`.

        Args:
            signature: The signature to run.
            feeds: One array for each of `signature.inputs`.
            outputs: The outputs to compute, as `Signature.select_outputs` returns them.
            deadline_s: Time (of `time.monotonic`) after which the request is no longer started.

        Raises:
            InvalidArgumentError: If the request has too many rows.
            UnavailableError: If the queue is full or the server is shutting down.
            DeadlineExceededError: If the deadline passed before the request was started.
            ServingError: If the computation fails.
        """
        rows = max([feed.shape[0] for feed in feeds if feed.ndim], default=0)
        now = time.monotonic()
        future: asyncio.Future[list[Array]] = self._loop.create_future()
        call = _Call(signature, feeds, outputs, deadline_s, future, now, rows)
        limit = self._options.max_request_rows
        if limit is not None and rows > limit:
            raise InvalidArgumentError(
                f"Task size {rows} is larger than maximum input batch size {limit}"
            )
        if self._is_stopped:
            raise shutting_down()
        if self._num_waiting >= self._options.max_waiting:
            raise queue_full()
        interval_s, self._requested_s = now - self._requested_s, now
        self._mean_interval_s += _INTERVAL_WEIGHT * (interval_s - self._mean_interval_s)
        self._waiting.setdefault(call.key(self._options), deque()).append(call)
        self._num_waiting += 1
        self._start_soon()
        return await future

    def stop(self) -> None:
        """Reject new and queued requests; runs in progress continue."""
        self._is_stopped = True
        dropped = [call for calls in self._waiting.values() for call in calls]
        self._waiting.clear()
        self._num_waiting = 0
        for call in dropped:
            call.error = shutting_down()
        _deliver(dropped)
        for _ in range(self._options.num_threads):
            self._runs.put(None)

    def _start_soon(self) -> None:
        # Not before the next iteration of the event loop, so that requests that arrived together
        # share a run.
        if not self._will_start:
            self._will_start = True
            self._loop.call_soon(self._start)

    def _start(self, idle_turns: int = _IDLE_TURNS, seen: int = 0) -> None:
        is_free = self._num_busy < self._options.num_threads
        if is_free and idle_turns and 1 < self._num_waiting < _LARGE_BATCH:
            idle_turns = _IDLE_TURNS if self._num_waiting > seen else idle_turns - 1
            self._loop.call_soon(self._start, idle_turns, self._num_waiting)
            return
        self._will_start = False
        while self._waiting and self._num_busy < self._options.num_threads:
            calls = self._take()
            longest_s = min(_SHORT_RUN_S, _SMALL_SHARE * self._mean_interval_s)
            rows = sum(call.rows for call in calls)
            if not self._num_busy and calls[0].signature.expected_s(rows) <= longest_s:
                self._run(calls)
                _deliver(calls)
            else:
                self._num_busy += 1
                self._runs.put(calls)

    def _work(self) -> None:
        while (calls := self._runs.get()) is not None:
            self._run(calls)
            self._loop.call_soon_threadsafe(self._finish, calls)
            del calls  # Otherwise an idle thread would keep tensors of an unloaded version.

    def _finish(self, calls: list[_Call]) -> None:
        self._num_busy -= 1
        _deliver(calls)
        if self._waiting:
            self._start_soon()

    def _take(self) -> list[_Call]:
        """Remove and return the next queued request and others that can share its run."""
        key, same = next(iter(self._waiting.items()))
        calls = [same.popleft()]
        rows = calls[0].rows
        while same and rows + same[0].rows <= self._options.max_batch_rows:
            calls.append(same.popleft())
            rows += calls[-1].rows
        if same:  # The rest runs after the other keys, whose requests have waited as well.
            self._waiting.move_to_end(key)
        else:
            del self._waiting[key]
        self._num_waiting -= len(calls)
        return calls

    def _run(self, calls: list[_Call]) -> None:
        """Set the results or the error of each request."""
        now = time.monotonic()
        live = []
        for call in calls:
            if call.deadline_s is not None and call.deadline_s <= now:
                call.error = timed_out()
            elif not call.future.cancelled():
                live.append(call)
        if not live:
            return
        if self._observer:
            waited_s = [now - call.enqueued_s for call in live]
            self._observer(len(live), sum(call.rows for call in live), waited_s)
        if len(live) > 1 and _run_together(live):
            return
        for call in live:
            try:
                call.results = call.signature.compute(call.feeds, call.outputs)
            except Exception as raised:  # The caller must get an answer in any case.
                call.error = as_serving_error(raised)


def _deliver(calls: Sequence[_Call]) -> None:
    for call in calls:
        if call.future.done():  # The caller has cancelled it.
            continue
        if call.error:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.results or [])


def _run_together(calls: Sequence[_Call]) -> bool:
    """Run requests as one batch; return False if it fails or an output has other rows."""
    first = calls[0]
    feeds = [
        _concatenate([call.feeds[index] for call in calls]) for index in range(len(first.feeds))
    ]
    try:
        results = first.signature.compute(feeds, first.outputs)
    except Exception:  # Each request runs again alone and gets its own error.
        return False
    total = sum(call.rows for call in calls)
    if any(result.ndim == 0 or result.shape[0] != total for result in results):
        return False
    start = 0
    for call in calls:
        end = start + call.rows
        call.results = [result[start:end] for result in results]
        start = end
    return True


def _concatenate(arrays: list[Array]) -> Array:
    first = arrays[0]
    if all(array.shape[1:] == first.shape[1:] for array in arrays):
        return np.concatenate(arrays)
    widths = np.max([array.shape[1:] for array in arrays], axis=0)
    padding = b"" if first.dtype == np.object_ else 0
    padded: Array = np.full((sum(map(len, arrays)), *widths), padding, dtype=first.dtype)
    start = 0
    for array in arrays:
        position = (slice(start, start + len(array)), *map(slice, array.shape[1:]))
        padded[position] = array
        start += len(array)
    return padded


def shutting_down() -> UnavailableError:
    """Return the error for requests that arrive or wait during shutdown."""
    return UnavailableError("The server is shutting down")


def queue_full() -> UnavailableError:
    """Return the error for a full queue, with the message of TensorFlow's batch scheduler."""
    return UnavailableError("The batch scheduling queue to which this task was submitted is full")


def timed_out() -> DeadlineExceededError:
    """Return the error for an expired deadline, with the message of TensorFlow's Session."""
    return DeadlineExceededError("Timed out waiting for notification")
