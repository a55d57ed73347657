"""Runs requests, those that wait for the same computation together, as one batch.

A free thread takes what is queued and never waits for more: a lone request goes at once, and while
a run is under way the requests that arrive queue up and then share the next run. That spares each
of them the fixed cost of a run; it never holds one back.

Requests share a run only where their answers cannot tell: same version, signature and outputs, and
the same shape but for the first dimension, along which they are laid one after the other. A run
that fails is repeated request by request, so that an error reaches who caused it.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from serving.errors import (
    CancelledError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ServingError,
    UnavailableError,
)
from serving.server import event_log
from serving.server.batching_options import BatchingOptions
from serving.server.signature import Signature
from serving.server.tensor_codec import Array

Observer = Callable[[int, int, Sequence[float]], None]
"""Told of each run: its requests, its rows, and how long each request waited, in seconds."""


class Call:
    """One request on its way through the queue.

    Args:
        signature: What to run.
        feeds: One array for each of `signature.inputs`, of the dtypes it asks for.
        outputs: What to compute, as `Signature.select_outputs` returns it.
        deadline_s: On `time.monotonic()`'s clock; after it the call is not run any more.
    """

    __slots__ = (
        "deadline_s",
        "enqueued_s",
        "error",
        "feeds",
        "future",
        "group",
        "is_abandoned",
        "is_row_by_row",
        "outputs",
        "results",
        "rows",
        "signature",
    )

    def __init__(
        self,
        signature: Signature,
        feeds: Sequence[Array],
        outputs: tuple[str, ...],
        deadline_s: float | None = None,
    ) -> None:
        self.signature = signature
        self.feeds = feeds
        self.outputs = outputs
        self.deadline_s = deadline_s
        sizes = {feed.shape[0] if feed.ndim else 0 for feed in feeds}
        self.rows = max(sizes, default=0)
        # Feeds of one row beside feeds of many do not qualify: the model repeats them for its
        # batch, and in a larger batch they would stand for one row only.
        self.is_row_by_row = len(sizes) == 1 and self.rows > 0
        self.enqueued_s = 0.0
        self.is_abandoned = False
        self.results: list[Array] = []
        self.error: ServingError | None = None
        # Of whoever waits for it; none of the batcher's business.
        self.future: Any = None
        self.group: Any = None


class Receiver(Protocol):
    """Who gets the calls back."""

    def __call__(self, calls: list[Call]) -> None:
        """Take calls whose `results` or `error` is set; called once for those of one run."""


class Batcher:
    """A queue of calls and the threads that run them.

    Args:
        options: Sizes and limits.
        observer: Told of each run.
    """

    def __init__(self, options: BatchingOptions, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer
        # By what may share a run, in the order of their oldest call.
        self._waiting: collections.OrderedDict[Hashable, collections.deque[_Entry]] = (
            collections.OrderedDict()
        )
        self.num_waiting = 0
        self.max_batch_rows = options.max_batch_rows
        self.max_enqueued_calls = options.max_enqueued_calls
        self.num_threads = options.num_batch_threads
        self._is_stopped = False
        self._changed = threading.Condition(threading.Lock())
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(options.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, calls: Sequence[Call], receiver: Receiver) -> None:
        """Queue calls.

        Args:
            calls: The calls.
            receiver: Gets them back, in a thread of the batcher or in this one; it must not block.
                Calls of one run with the same receiver come back together. A call that is too
                large, or that finds the queue full, comes back at once with its error.
        """
        refused: list[Call] = []
        now = time.monotonic()
        with self._changed:
            for call in calls:
                call.error = self._refusal(call)
                if call.error:
                    refused.append(call)
                    continue
                call.enqueued_s = now
                key = self._key(call)
                same = self._waiting.get(key)
                if same is None:
                    same = self._waiting[key] = collections.deque()
                    self._changed.notify()
                same.append((call, receiver))
                self.num_waiting += 1
        if refused:
            receiver(refused)

    def _refusal(self, call: Call) -> ServingError | None:
        options = self._options
        if options.max_request_rows is not None and call.rows > options.max_request_rows:
            # TensorFlow's batch scheduler.
            return InvalidArgumentError(
                f"Task size {call.rows} is larger than maximum input batch size "
                f"{options.max_request_rows}"
            )
        if self._is_stopped:
            return shutting_down()
        if self.num_waiting >= options.max_enqueued_calls:
            return queue_full()
        return None

    def run(self, call: Call, timeout_s: float) -> list[Array]:
        """Queue a call and wait for its results.

        Raises:
            DeadlineExceededError: If they are not there in time.
            ServingError: As the run ends.
        """
        done = threading.Event()
        self.submit([call], _Setter(done))
        if not done.wait(timeout_s):
            call.is_abandoned = True
            raise timed_out()
        if call.error:
            raise call.error
        return call.results

    def stop(self) -> None:
        """Refuse new calls and drop those that wait; the runs under way go on."""
        with self._changed:
            self._is_stopped = True
            dropped = [entry for same in self._waiting.values() for entry in same]
            self._waiting.clear()
            self.num_waiting = 0
            self._changed.notify_all()
        for call, _ in dropped:
            call.error = shutting_down()
        _give_back(dropped)

    def _key(self, call: Call) -> Hashable:
        if not (self._options.is_enabled and call.is_row_by_row and call.signature.is_batchable):
            return id(call)
        pads = self._options.pads
        shapes = tuple(
            [
                feed.ndim if feed.ndim > 1 and pads(info.alias) else feed.shape[1:]
                for info, feed in zip(call.signature.inputs, call.feeds, strict=True)
            ]
        )
        return id(call.signature), call.outputs, shapes

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_stopped:
                        return
                    self._changed.wait()
                entries = self._take()
            try:
                self._run(entries)
            except Exception as raised:  # The thread must outlive it.
                event_log.error("batch_crashed", error=repr(raised))
                for call, _ in entries:
                    call.error = InternalError(f"{type(raised).__name__}: {raised}")
            _give_back(entries)
            del entries  # Else an idle thread would keep an unloaded version's tensors.

    def _take(self) -> list[_Entry]:
        """Take the oldest waiting call and all that may run with it."""
        key, same = next(iter(self._waiting.items()))
        entries, rows = [same.popleft()], 0
        rows = entries[0][0].rows
        while same and rows + same[0][0].rows <= self._options.max_batch_rows:
            entries.append(same.popleft())
            rows += entries[-1][0].rows
        if same:  # Behind the others, which have waited as well.
            self._waiting.move_to_end(key)
        else:
            del self._waiting[key]
        self.num_waiting -= len(entries)
        return entries

    def _run(self, entries: list[_Entry]) -> None:
        now = time.monotonic()
        live = []
        for call, _ in entries:
            if call.is_abandoned:
                call.error = CancelledError("The caller is gone")
            elif call.deadline_s is not None and call.deadline_s <= now:
                call.error = timed_out()
            else:
                live.append(call)
        if not live:
            return
        if self._observer:
            self._observer(
                len(live),
                sum(call.rows for call in live),
                [now - call.enqueued_s for call in live],
            )
        if len(live) == 1 or not _run_together(live):
            for call in live:
                _run_alone(call)


_Entry = tuple[Call, Receiver]


class _Setter:
    """Receives for one who waits."""

    def __init__(self, done: threading.Event) -> None:
        self._done = done

    def __call__(self, calls: list[Call]) -> None:
        self._done.set()


def shutting_down() -> UnavailableError:
    """Return the error of a request that comes too late."""
    return UnavailableError("The server is shutting down")


def queue_full() -> UnavailableError:
    """Return the error of TensorFlow's batch scheduler when it has no more room."""
    return UnavailableError("The batch scheduling queue to which this task was submitted is full")


def timed_out() -> DeadlineExceededError:
    """Return the error that TensorFlow's Session has when its time is up."""
    return DeadlineExceededError("Timed out waiting for notification")


def _run_together(calls: Sequence[Call]) -> bool:
    """Run calls as one; False if that failed or the results are not row by row."""
    first = calls[0]
    feeds = [_stack([call.feeds[index] for call in calls]) for index in range(len(first.feeds))]
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


def _run_alone(call: Call) -> None:
    try:
        call.results = call.signature.compute(call.feeds, call.outputs)
    except ServingError as error:
        call.error = error


def _stack(arrays: list[Array]) -> Array:
    """Lay arrays one after the other, the narrower ones padded with "" or 0."""
    first = arrays[0]
    if all(array.shape[1:] == first.shape[1:] for array in arrays):
        return np.concatenate(arrays)
    sizes = np.max([array.shape[1:] for array in arrays], axis=0)
    rows = sum(len(array) for array in arrays)
    stacked: Array = np.full(
        (rows, *sizes), b"" if first.dtype == np.object_ else 0, dtype=first.dtype
    )
    start = 0
    for array in arrays:
        place = (slice(start, start + len(array)), *map(slice, array.shape[1:]))
        stacked[place] = array
        start += len(array)
    return stacked


def _give_back(entries: Sequence[_Entry]) -> None:
    by_receiver: dict[int, tuple[Receiver, list[Call]]] = {}
    for call, receiver in entries:
        by_receiver.setdefault(id(receiver), (receiver, []))[1].append(call)
    for receiver, calls in by_receiver.values():
        try:
            receiver(calls)
        except Exception as raised:  # An event loop that is closed takes nothing back.
            event_log.warning("answers_dropped", calls=len(calls), error=repr(raised))
