"""Deadlines and retries of the clients, without any I/O.

A client method is a generator of steps: it yields a `Send`, and receives the response or the
`ServingError`. So the blocking and the asyncio clients share their logic and differ only in their
I/O. httpx's `auth_flow` uses the same pattern.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from serving.clients.model import shown
from serving.errors import DeadlineExceededError, InvalidArgumentError, ServingError

# A year. Sockets and gRPC cannot wait for much more.
_LONGEST_S = 31_536_000

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Send:
    """A step: wait `pause_s`, then send a request in the protocol's format."""

    request: Any
    timeout_s: float
    pause_s: float


Flow = Generator[Send, Any, T]
"""The steps of one call, and its result."""


@dataclasses.dataclass(frozen=True)
class Exchange(Generic[T]):
    """A request in the protocol's format, and the function that parses its response."""

    request: Any
    read: Callable[[Any], T]


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """The number of attempts of a call and the pauses between them.

    Attributes:
        max_attempts: Maximum number of attempts of a call, including the first; 1 disables
            retries.
        first_pause_s: The pause before the second attempt; it doubles for each further one. Each
            pause is shortened at random by up to half, so that the clients of a restarted server
            do not all retry at the same time.
        max_pause_s: The longest pause.

    Raises:
        InvalidArgumentError: There is no attempt, or a pause is not a number from 0 to a year.
    """

    # With these defaults, the pauses of a call add up to 175 to 350 ms. gRPC itself waits up to
    # 100 ms before it reconnects.
    max_attempts: int = 4
    first_pause_s: float = 0.05
    max_pause_s: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise InvalidArgumentError(
                f"max_attempts must be an integer of at least 1, got {shown(self.max_attempts)}"
            )
        for name in ("first_pause_s", "max_pause_s"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value <= _LONGEST_S:
                raise InvalidArgumentError(
                    f"{name} must be from 0 to {_LONGEST_S:,} seconds, got {shown(value)}"
                )

    def pause_s(self, failures: int) -> float:
        """Return the pause in seconds after the given number of failures (1 or more)."""
        # Without this bound on the exponent, the power overflows a float after many attempts.
        longest_s = min(self.first_pause_s * 2.0 ** min(failures - 1, 60), self.max_pause_s)
        return longest_s * random.uniform(0.5, 1.0)


class Deadline:
    """The time limit of a call, which includes all of its requests and pauses.

    Raises:
        InvalidArgumentError: `timeout_s` is not a number up to a year.
    """

    def __init__(self, timeout_s: float) -> None:
        if not isinstance(timeout_s, (int, float)) or not abs(timeout_s) <= _LONGEST_S:
            raise InvalidArgumentError(
                f"timeout_s must be at most {_LONGEST_S:,} seconds, got {shown(timeout_s)}"
            )
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s

    def left_s(self, pause_s: float = 0.0) -> float:
        """Return the time in seconds that is left after a pause."""
        left_s = self._ends_at - time.monotonic() - pause_s
        if left_s <= 0:
            raise DeadlineExceededError(f"No answer within {self._timeout_s:g} s")
        return left_s

    def allows(self, pause_s: float) -> bool:
        """Return whether a pause that starts now would end before the deadline."""
        return time.monotonic() + pause_s < self._ends_at


def send_with_retries(exchange: Exchange[T], policy: RetryPolicy, deadline: Deadline) -> Flow[T]:
    """Send a request, and retry it after retryable errors while attempts and time are left.

    Raises:
        ServingError: The error of the last attempt.
    """
    failures, pause_s = 0, 0.0
    while True:
        response = yield Send(exchange.request, deadline.left_s(pause_s), pause_s)
        if not isinstance(response, ServingError):
            return exchange.read(response)
        failures += 1
        pause_s = policy.pause_s(failures)
        is_last = failures >= policy.max_attempts or not deadline.allows(pause_s)
        if is_last or not response.retryable:
            raise response
