"""What a load test found, and how it is summed up."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclasses.dataclass
class LoadResult:
    """Counts and times of the requests that began, or were due, while it was measured.

    Attributes:
        duration_s: How long it was measured.
        answered_in_time: Answers that came before the measurement ended; the throughput's.
        latencies_s: Of answers, and of requests that ran out of time: how long each took. In an
            open loop from the time when the request was due, so that waiting for a server that
            does not keep up counts ("coordinated omission" is not left out).
        errors: Failed requests by the name of their code.
        messages: The first message of each code.
        driver_busy: The share of its time that the driver's event loop computed; near 1 the
            driver and not the server was measured.
    """

    duration_s: float
    answered_in_time: int = 0
    latencies_s: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    errors: Counter[str] = dataclasses.field(default_factory=Counter)
    messages: dict[str, str] = dataclasses.field(default_factory=dict)
    driver_busy: float = 0.0

    @classmethod
    def merge(cls, results: Sequence[LoadResult]) -> LoadResult:
        """Return what several drivers found together."""
        merged = cls(max(result.duration_s for result in results))
        for result in results:
            merged.answered_in_time += result.answered_in_time
            merged.latencies_s.extend(result.latencies_s)
            merged.errors.update(result.errors)
            merged.messages = {**result.messages, **merged.messages}
        merged.driver_busy = max(result.driver_busy for result in results)
        return merged

    @property
    def requests(self) -> int:
        """Requests that were answered or failed."""
        out_of_time = self.errors["DEADLINE_EXCEEDED"]
        return len(self.latencies_s) - out_of_time + self.errors.total()

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return self.answered_in_time / self.duration_s

    def quantile_s(self, quantile: float) -> float:
        """Return the latency that this share of the requests did not exceed; NaN without any."""
        if not self.latencies_s:
            return math.nan
        ordered = sorted(self.latencies_s)
        return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]

    def to_json(self) -> dict[str, Any]:
        """As plain data; latencies in milliseconds, null without any."""
        ordered = array("d", sorted(self.latencies_s))
        self.latencies_s = ordered  # sorting what is sorted costs next to nothing
        latencies = {f"p{100 * q:g}": self.quantile_s(q) for q in QUANTILES}
        if ordered:
            latencies |= {"mean": sum(ordered) / len(ordered), "max": ordered[-1]}
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
