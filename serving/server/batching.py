"""The batcher: requests that wait for the same computation share one run of the model.

A free thread takes what is queued and never waits for more. A lone request runs at once; requests
that arrive during a run queue up and share the next one, which spares them the fixed cost of a run.

Requests share a run only if their answers stay the same: same version, signature and outputs, and
the same shapes except for the first dimension, along which they are concatenated. If a shared run
fails, its requests run one by one, so that only the request at fault gets the error.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from serving.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ServingError,
    UnavailableError,
)
from serving.server import event_log
from serving.server.signature import Signature
from serving.server.tensor_codec import Array

Observer = Callable[[int, int, Sequence[float]], None]
"""Called for each run with its requests, its rows, and the seconds that each request waited."""


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """Sizes and limits of the batches.

    Attributes:
        is_enabled: Whether requests share runs.
        max_batch_rows: Maximum rows of a shared run; a larger request runs alone.
        max_request_rows: Larger requests are refused; None refuses none.
        max_waiting: Maximum requests in the queue; more are refused.
        num_threads: Runs at the same time.
        pads_inputs: Whether requests whose inputs differ after the first dimension share a run;
            the narrower ones are padded with "" or 0.
    """

    is_enabled: bool = True
    max_batch_rows: int = 128
    max_request_rows: int | None = None
    max_waiting: int = 10_000
    # Half of the CPUs compute, the other half read and write requests. With one thread for each
    # CPU there is always a free one, and no two requests ever meet in the queue.
    num_threads: int = max(1, (os.cpu_count() or 1) // 2)
    pads_inputs: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class _Call:
    """One request in the queue."""

    signature: Signature
    feeds: Sequence[Array]
    outputs: tuple[str, ...]
    deadline_s: float | None
    future: asyncio.Future[list[Array]]
    rows: int = 0
    enqueued_s: float = 0.0
    results: list[Array] = dataclasses.field(default_factory=list)
    error: ServingError | None = None

    def __post_init__(self) -> None:
        self.rows = max([feed.shape[0] for feed in self.feeds if feed.ndim], default=0)
        self.enqueued_s = time.monotonic()

    def key(self, options: BatchingOptions) -> Hashable:
        """Return what requests that may share a run have in common."""
        rows = self.rows
        # An input of one row counts for the whole batch of its own request. In a larger batch it
        # would be one row of many.
        if not (
            options.is_enabled
            and rows
            and self.signature.is_batchable
            and all(feed.ndim and feed.shape[0] == rows for feed in self.feeds)
        ):
            return id(self)
        if options.pads_inputs:
            shapes: tuple[Hashable, ...] = tuple([feed.ndim for feed in self.feeds])
        else:
            shapes = tuple([feed.shape[1:] for feed in self.feeds])
        return id(self.signature), self.outputs, shapes


class Batcher:
    """A queue of requests and the threads that run them; belongs to the running event loop.

    Example:
        batcher = Batcher(BatchingOptions())
        results = await batcher.run(signature, feeds, signature.outputs)

    Args:
        options: Sizes and limits.
        observer: Called for each run.
    """

    def __init__(self, options: BatchingOptions, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        # By key, in the order of the oldest request. Shared with the threads, like the counts.
        self._waiting: collections.OrderedDict[Hashable, collections.deque[_Call]] = (
            collections.OrderedDict()
        )
        self._num_waiting = 0
        self._num_busy = 0
        self._lock = threading.Lock()
        self._is_stopped = False
        self._will_start_threads = False
        self._threads = ThreadPoolExecutor(options.num_threads, thread_name_prefix="batch")

    async def run(
        self,
        signature: Signature,
        feeds: Sequence[Array],
        outputs: tuple[str, ...],
        deadline_s: float | None = None,
    ) -> list[Array]:
        """Queue a request and return its results.

        Args:
            signature: The signature to run.
            feeds: One array for each of `signature.inputs`.
            outputs: The outputs to compute, as `Signature.select_outputs` returns them.
            deadline_s: On the clock of `time.monotonic`; later than that the request is not run.

        Raises:
            InvalidArgumentError: If the request has too many rows.
            UnavailableError: If the queue is full or the server shuts down.
            DeadlineExceededError: If the request waited past its deadline.
            ServingError: If the computation fails.
        """
        call = _Call(signature, feeds, outputs, deadline_s, self._loop.create_future())
        self._check_limits(call.rows)
        key = call.key(self._options)
        with self._lock:
            self._waiting.setdefault(key, collections.deque()).append(call)
            self._num_waiting += 1
        if not self._will_start_threads:
            # At the end of this turn of the loop, so that requests that arrived together run
            # together.
            self._will_start_threads = True
            self._loop.call_soon(self._start_threads)
        return await call.future

    def stop(self) -> None:
        """Refuse new requests and drop the waiting ones; runs in progress go on."""
        self._is_stopped = True
        with self._lock:
            dropped = [call for calls in self._waiting.values() for call in calls]
            self._waiting.clear()
            self._num_waiting = 0
        for call in dropped:
            call.error = shutting_down()
        _deliver(dropped)
        self._threads.shutdown(wait=False)

    def _check_limits(self, rows: int) -> None:
        limit = self._options.max_request_rows
        if limit is not None and rows > limit:
            raise InvalidArgumentError(
                f"Task size {rows} is larger than maximum input batch size {limit}"
            )
        if self._is_stopped:
            raise shutting_down()
        if self._num_waiting >= self._options.max_waiting:
            raise queue_full()

    def _start_threads(self) -> None:
        self._will_start_threads = False
        with self._lock:
            num_new = min(self._options.num_threads - self._num_busy, len(self._waiting))
            self._num_busy += num_new
        for _ in range(num_new):
            self._threads.submit(self._work)

    def _work(self) -> None:
        """Run batches until nothing waits; runs in a thread."""
        while True:
            with self._lock:
                calls = self._take()
                if not calls:
                    self._num_busy -= 1
                    return
            try:
                self._run(calls)
            except Exception as raised:  # The callers must get an answer whatever happens here.
                event_log.error("batch_crashed", error=repr(raised))
                for call in calls:
                    call.error = InternalError(f"{type(raised).__name__}: {raised}")
            self._loop.call_soon_threadsafe(_deliver, calls)
            del calls  # An idle thread would keep an unloaded version's tensors.

    def _take(self) -> list[_Call]:
        """Take the oldest waiting request and those that can run with it."""
        if not self._waiting:
            return []
        key, same = next(iter(self._waiting.items()))
        calls = [same.popleft()]
        rows = calls[0].rows
        while same and rows + same[0].rows <= self._options.max_batch_rows:
            calls.append(same.popleft())
            rows += calls[-1].rows
        if same:  # Behind the other keys, which have waited as well.
            self._waiting.move_to_end(key)
        else:
            del self._waiting[key]
        self._num_waiting -= len(calls)
        return calls

    def _run(self, calls: list[_Call]) -> None:
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
        if len(live) == 1 or not _run_together(live):
            for call in live:
                try:
                    call.results = call.signature.compute(call.feeds, call.outputs)
                except ServingError as error:
                    call.error = error


def _deliver(calls: Sequence[_Call]) -> None:
    for call in calls:
        if call.future.done():  # The caller has given up.
            continue
        if call.error:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.results)


def _run_together(calls: Sequence[_Call]) -> bool:
    """Run requests as one batch; return False if that failed or results are not row by row."""
    first = calls[0]
    feeds = [
        _concatenate([call.feeds[index] for call in calls]) for index in range(len(first.feeds))
    ]
    try:
        results = first.signature.compute(feeds, first.outputs)
    except ServingError:
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
    """Return the error of a request that arrives during shutdown."""
    return UnavailableError("The server is shutting down")


def queue_full() -> UnavailableError:
    """Return the error of TensorFlow's batch scheduler for a full queue."""
    return UnavailableError("The batch scheduling queue to which this task was submitted is full")


def timed_out() -> DeadlineExceededError:
    """Return the error of TensorFlow's Session for an expired deadline."""
    return DeadlineExceededError("Timed out waiting for notification")
