"""The server's metrics, which have TensorFlow Serving's names, and their Prometheus page.

`prometheus_client` does not support these names: they begin with a colon, and the names of counters
do not end in `_total`.

References:
    tensorflow_serving/util/prometheus_exporter.cc, and the metrics of servables/tensorflow/util.cc,
    saved_model_warmup_util.cc, batching_session.cc and batching_util.h.
"""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# Limit of cells per metric. Requests can contain any model name, and each name is a label value.
MAX_CELLS = 1000
_OVERFLOW = "other"

Labels = tuple[str, ...]


class _Metric:
    """A metric with a cell for each combination of label values."""

    def __init__(self, name: str, *label_names: str) -> None:
        self.page_name = re.sub(r"[^a-zA-Z0-9_]", ":", name)
        self._label_names = label_names
        self._lock = threading.Lock()
        self._cells: dict[Labels, Any] = {}

    def _limited(self, labels: Labels) -> Labels:
        return labels if len(self._cells) < MAX_CELLS else (_OVERFLOW,) * len(labels)

    def _label_text(self, labels: Labels) -> str:
        return ",".join(
            f'{name}="{_escape(value)}"'
            for name, value in zip(self._label_names, labels, strict=True)
        )


class Counter(_Metric):
    """A number that only increases."""

    def add(self, *labels: str) -> None:
        """Increase the cell for these label values by 1."""
        with self._lock:
            if labels not in self._cells:
                labels = self._limited(labels)
            self._cells[labels] = self._cells.get(labels, 0) + 1

    def lines(self) -> Iterator[str]:
        """Yield the metric's lines of the Prometheus page."""
        with self._lock:
            cells = sorted(self._cells.items())
        if cells:
            yield f"# TYPE {self.page_name} counter"
        for labels, value in cells:
            yield f"{self.page_name}{{{self._label_text(labels)}}} {value}"


class Histogram(_Metric):
    """A histogram whose bucket limits grow exponentially.

    Args:
        name: The name of the metric.
        label_names: The names of its labels.
        first_limit: The upper limit of the first bucket.
        factor: The ratio of each limit to the previous one.
        limits: The number of limits. One more bucket holds the values above the last limit.
    """

    def __init__(
        self, name: str, *label_names: str, first_limit: float, factor: float, limits: int
    ) -> None:
        super().__init__(name, *label_names)
        self._limits = [first_limit * factor**power for power in range(limits)]

    def add(self, value: float, *labels: str) -> None:
        """Add a value to the cell for these label values."""
        with self._lock:
            if labels not in self._cells:
                labels = self._limited(labels)
                self._cells.setdefault(labels, ([0] * (len(self._limits) + 1), [0.0]))
            buckets, total = self._cells[labels]
            # A value equal to a limit belongs to the bucket above it, as in TensorFlow.
            buckets[bisect.bisect_right(self._limits, value)] += 1
            total[0] += value

    def lines(self) -> Iterator[str]:
        """Yield the metric's lines of the Prometheus page."""
        with self._lock:
            cells = sorted(
                (labels, list(buckets), total[0])
                for labels, (buckets, total) in self._cells.items()
            )
        if cells:
            yield f"# TYPE {self.page_name} histogram"
        names = [*(f"{limit:.6g}" for limit in self._limits), "+Inf"]
        for labels, buckets, total in cells:
            text = self._label_text(labels)
            prefix = f"{self.page_name}_bucket{{{text}{',' if text else ''}"
            count = 0
            for name, in_bucket in zip(names, buckets, strict=True):
                count += in_bucket
                yield f'{prefix}le="{name}"}} {count}'
            yield f"{self.page_name}_sum{{{text}}} {total:.6g}"
            yield f"{self.page_name}_count{{{text}}} {count}"


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
