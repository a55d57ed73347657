"""The plan and the result of a load test."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from serving.clients.tls import TlsOptions

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclasses.dataclass(frozen=True)
class LoadPlan:
    """The requests of a load test, and their rate or the number of clients that send them.

    Attributes:
        target: `host:port` of the server, or `dns:///name:port` for all addresses of the name.
        requests: Serialized PredictRequests, which are sent in this order and repeated.
        concurrency: Closed loop: the number of clients. Each waits for the response before it
            sends its next request.
        rate: Open loop: the number of requests per second, regardless of the responses. They
            arrive at random times, as from independent users (a Poisson process).
        warmup_s: Length of the warm-up, which has the same load and is not measured.
        timeout_s: Time limit of a request. In an open loop, it starts when the request is due.
        connections: Number of connections that share the requests.
        seed: Random seed of the arrival times in an open loop.

    Raises:
        ValueError: If both or neither of `concurrency` and `rate` are given, `requests` is empty,
            or a number is not positive.
    """

    target: str
    requests: Sequence[bytes]
    duration_s: float
    concurrency: int | None = None
    rate: float | None = None
    warmup_s: float = 1.0
    timeout_s: float = 5.0
    connections: int = 4
    seed: int = 0
    tls: TlsOptions | None = None

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("Pass either concurrency or rate")
        for name in ("concurrency", "rate", "duration_s", "timeout_s", "connections"):
            number = getattr(self, name)
            if number is not None and not number > 0:
                raise ValueError(f"{name} must be above 0, got {number}")
        if not self.requests:
            raise ValueError("There must be at least one request to send")

    def share(self, index: int, count: int) -> LoadPlan:
        """Return the plan of process `index` of `count` processes that share this load."""
        first = len(self.requests) * index // count
        clients = self.concurrency
        return dataclasses.replace(
            self,
            requests=[*self.requests[first:], *self.requests[:first]],
            concurrency=None if clients is None else (clients + count - 1 - index) // count,
            rate=None if self.rate is None else self.rate / count,
            seed=self.seed + index,
        )


@dataclasses.dataclass
class LoadResult:
    """Counts and latencies of the requests that began, or were due, during the measurement.

    Attributes:
        answered_in_time: Number of answers that arrived during the measurement.
        latencies_s: Latencies of answered requests and of requests that timed out. In an open
            loop, they start when the request is due, so they include the delay of a server that
            does not keep up. This avoids "coordinated omission".
        errors: Number of failed requests by the name of the gRPC status code.
        messages: The first error message for each of these names.
        driver_busy: Share of the time in which the load generator itself used the CPU. If it is
            near 1, the results show the limit of the load generator, not of the server.
    """

    duration_s: float
    answered_in_time: int = 0
    latencies_s: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    errors: Counter[str] = dataclasses.field(default_factory=Counter)
    messages: dict[str, str] = dataclasses.field(default_factory=dict)
    driver_busy: float = 0.0

    @classmethod
    def merge(cls, results: Sequence[LoadResult]) -> LoadResult:
        """Combine the results of processes that shared a load."""
        merged = cls(max(result.duration_s for result in results))
        for result in results:
            merged.answered_in_time += result.answered_in_time
            merged.latencies_s.extend(result.latencies_s)
            merged.errors.update(result.errors)
            merged.messages = {**result.messages, **merged.messages}
            merged.driver_busy = max(merged.driver_busy, result.driver_busy)
        return merged

    @property
    def requests(self) -> int:
        """Return the number of requests that were answered or failed."""
        timed_out = self.errors["DEADLINE_EXCEEDED"]
        return len(self.latencies_s) - timed_out + self.errors.total()

    @property
    def throughput(self) -> float:
        """Return the number of answers per second."""
        return self.answered_in_time / self.duration_s

    def quantile_s(self, quantile: float) -> float:
        """Return a quantile (0 to 1) of the latencies in seconds; NaN without latencies."""
        if not self.latencies_s:
            return math.nan
        ordered = sorted(self.latencies_s)
        return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable summary; without latencies, the quantiles are None."""
        latencies = {f"p{100 * q:g}": self.quantile_s(q) for q in QUANTILES}
        if self.latencies_s:
            mean_s = sum(self.latencies_s) / len(self.latencies_s)
            latencies |= {"mean": mean_s, "max": max(self.latencies_s)}
        return {
            "duration_s": self.duration_s,
            "requests": self.requests,
            "throughput_per_s": round(self.throughput, 1),
            "latency_ms": {
                name: None if math.isnan(value) else round(1000 * value, 3)
                for name, value in latencies.items()
            },
            "errors": dict(self.errors),
            "error_messages": self.messages,
            "driver_busy": round(self.driver_busy, 2),
        }
