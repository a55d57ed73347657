"""What a load test is to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from serving.clients.tls import TlsOptions


@dataclasses.dataclass(frozen=True)
class LoadPlan:
    """Load of one of two kinds: so many clients, or so many requests a second.

    Attributes:
        target: `host:port` of the server.
        requests: Serialized PredictRequests, sent in turn, over and over.
        duration_s: How long to measure.
        concurrency: Closed loop: so many clients, each of which asks again when it is answered.
        rate: Open loop: requests a second, whether answers come or not. They arrive as from
            independent users (a Poisson process).
        warmup_s: Load before the measurement, not counted.
        timeout_s: The deadline of a request; in an open loop from the time when it was due.
        connections: Over how many connections the requests go.
        seed: Of the arrivals.
        tls: Encrypts the connections.

    Raises:
        ValueError: If it is not one kind of load, or a number is out of range.
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
            raise ValueError("either concurrency or rate must be given")
        numbers = {
            "concurrency": self.concurrency,
            "rate": self.rate,
            "duration_s": self.duration_s,
            "timeout_s": self.timeout_s,
            "connections": self.connections,
        }
        for name, number in numbers.items():
            if number is not None and not number > 0:
                raise ValueError(f"{name} must be above 0, got {number}")
        if not self.requests:
            raise ValueError("there must be at least one request to send")

    def share(self, place: int, count: int) -> LoadPlan:
        """Return the part of one of `count` drivers, which together do all of it."""
        turned = len(self.requests) * place // count
        return dataclasses.replace(
            self,
            requests=[*self.requests[turned:], *self.requests[:turned]],
            concurrency=(
                None
                if self.concurrency is None
                else (self.concurrency + count - 1 - place) // count
            ),
            rate=None if self.rate is None else self.rate / count,
            seed=self.seed + place,
        )
