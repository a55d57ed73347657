"""The server's metrics, which have TensorFlow Serving's names if it has them, and their page.

`prometheus_client` does not support these names: they begin with a colon, and the names of counters
do not end in `_total`.

References:
    tensorflow_serving/util/prometheus_exporter.cc, and the metrics of servables/tensorflow/util.cc,
    saved_model_warmup_util.cc, batching_session.cc and batching_util.h.
"""

from __future__ import annotations

import abc
import bisect
import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# Limit of cells per metric. Requests can contain any model name, and each name is a label value.
MAX_CELLS = 1000
_OVERFLOW = "other"


class _Metric(abc.ABC):
    """A metric with a list of numbers for each combination of label values."""

    kind: ClassVar[str]

    def __init__(self, name: str, *label_names: str, cell_size: int = 1) -> None:
        self.page_name = re.sub(r"[^a-zA-Z0-9_]", ":", name)
        self._label_names = label_names
        self._cell_size = cell_size
        self._lock = threading.Lock()
        self._cells: dict[tuple[str, ...], list[float]] = {}

    def _cell(self, labels: tuple[str, ...]) -> list[float]:
        cell = self._cells.get(labels)
        if cell is None:
            if len(self._cells) >= MAX_CELLS:
                labels = (_OVERFLOW,) * len(labels)
            cell = self._cells.setdefault(labels, [0] * self._cell_size)
        return cell

    def lines(self) -> Iterator[str]:
        """Yield the metric's lines of the Prometheus page."""
        with self._lock:
            cells = sorted((labels, list(cell)) for labels, cell in self._cells.items())
        if cells:
            yield f"# TYPE {self.page_name} {self.kind}"
        for labels, cell in cells:
            pairs = zip(self._label_names, labels, strict=True)
            text = ",".join(f'{name}="{_escape(value)}"' for name, value in pairs)
            yield from self._cell_lines(text, cell)

    @abc.abstractmethod
    def _cell_lines(self, labels: str, cell: list[float]) -> Iterator[str]:
        """Yield the lines of one cell."""


class Counter(_Metric):
    """A number that only increases."""

    kind = "counter"

    def add(self, *labels: str) -> None:
        """Increase the cell for these label values by 1."""
        with self._lock:
            self._cell(labels)[0] += 1

    def _cell_lines(self, labels: str, cell: list[float]) -> Iterator[str]:
        yield f"{self.page_name}{{{labels}}} {cell[0]}"


class Histogram(_Metric):
    """A histogram whose bucket limits grow exponentially.

    Args:
        name: The name of the metric.
        label_names: The names of its labels.
        first_limit: The upper limit of the first bucket.
        factor: The ratio of each limit to the previous one.
        limits: The number of limits. One more bucket holds the values above the last limit.
    """

    kind = "histogram"

    def __init__(
        self, name: str, *label_names: str, first_limit: float, factor: float, limits: int
    ) -> None:
        # A cell contains the number of values in each bucket, and the sum of the values.
        super().__init__(name, *label_names, cell_size=limits + 2)
        self._limits = [first_limit * factor**power for power in range(limits)]
        self._bucket_names = [*(f"{limit:.6g}" for limit in self._limits), "+Inf"]

    def add(self, value: float, *labels: str) -> None:
        """Add a value to the cell for these label values."""
        # A value equal to a limit belongs to the bucket above it, as in TensorFlow.
        bucket = bisect.bisect_right(self._limits, value)
        with self._lock:
            cell = self._cell(labels)
            cell[bucket] += 1
            cell[-1] += value

    def _cell_lines(self, labels: str, cell: list[float]) -> Iterator[str]:
        prefix = f"{self.page_name}_bucket{{{labels}{',' if labels else ''}"
        *buckets, total = cell
        counts = list(itertools.accumulate(buckets))
        for name, count in zip(self._bucket_names, counts, strict=True):
            yield f'{prefix}le="{name}"}} {count}'
        yield f"{self.page_name}_sum{{{labels}}} {total:.6g}"
        yield f"{self.page_name}_count{{{labels}}} {counts[-1]}"


def _latency(name: str, *label_names: str) -> Histogram:
    """Return a histogram of times from 10 us to about 25 minutes."""
    return Histogram(
        f"/tensorflow/serving/{name}", *label_names, first_limit=10, factor=1.8, limits=33
    )


class Metrics:
    """All metrics of a server; times are in microseconds."""

    def __init__(self) -> None:
        self.request_count = Counter("/tensorflow/serving/request_count", "model_name", "status")
        self.request_latency = _latency("request_latency", "model_name", "API", "entrypoint")
        self.runtime_latency = _latency("runtime_latency", "model_name", "API", "runtime")
        self.warmup_latency = _latency("model_warmup_latency", "model_path", "status")
        self.request_log_count = Counter("/two_tower/serving/request_log_count", "status")
        self.queuing_latency = Histogram(
            "/tensorflow/serving/batching_session/queuing_latency",
            "thread_pool_name",
            first_limit=100,
            factor=1.2,
            limits=52,
        )
        self.run_count = Counter("/tensorflow/serving/batching_session/wrapped_run_count")
        self.processed_batch_size = Histogram(
            "/tensorflow/serving/batching_session/processed_batch_size",
            first_limit=1,
            factor=2,
            limits=14,
        )

    def observe_run(self, requests: int, rows: int, waits_s: Sequence[float]) -> None:
        """Record a run of the batcher: its number of rows, and the wait of each request."""
        self.run_count.add()
        self.processed_batch_size.add(rows)
        for wait_s in waits_s:
            self.queuing_latency.add(wait_s * 1e6, "batch_threads")

    def page(self) -> bytes:
        """Return the Prometheus page, sorted by metric name."""
        metrics = [value for value in vars(self).values() if isinstance(value, Counter | Histogram)]
        metrics.sort(key=lambda metric: metric.page_name)
        lines = [line for metric in metrics for line in metric.lines()]
        return ("\n".join(lines) + "\n").encode()


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
