"""Tries again what may succeed a moment later, within the caller's time."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from serving.errors import DeadlineExceededError, ServingError

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often and after which pause a call is tried again.

    Attributes:
        max_attempts: Attempts in total; 1 switches retries off.
        first_pause_s: The pause before the second attempt, doubled each time. A random half of
            it is left out, so that clients of a restarted server do not come back in step.
        max_pause_s: What the pauses grow to at most.
    """

    # Over 175 to 350 ms: gRPC itself pauses up to 100 ms before it connects to a server again that
    # was away for a moment.
    max_attempts: int = 4
    first_pause_s: float = 0.05
    max_pause_s: float = 2.0

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures."""
        # The exponent is bounded: many attempts would overflow a float.
        longest_s = min(self.first_pause_s * 2.0 ** min(failures - 1, 60), self.max_pause_s)
        return longest_s * random.uniform(0.5, 1.0)


class Deadline:
    """The end of a caller's time, shared by all that one call does.

    Args:
        timeout_s: The time from now.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineExceededError: If there are none.
        """
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceededError(f"No answer within {self._timeout_s:g} s")
        return left_s

    def allows(self, pause_s: float) -> bool:
        """Return whether time is left after a pause."""
        return time.monotonic() + pause_s < self._ends_at


async def call_with_retries(
    call: Callable[[float], Awaitable[_T]],
    policy: RetryPolicy,
    deadline: Deadline,
    pause: Callable[[float], Awaitable[None]],
) -> _T:
    """Call until it succeeds, a retry cannot help, or attempts or time run out.

    Args:
        call: Gets the seconds that are left.
        policy: How often to try.
        deadline: Of all attempts together.
        pause: Waits for some seconds.

    Raises:
        ServingError: The last attempt's.
    """
    failures = 0
    while True:
        try:
            return await call(deadline.left_s())
        except ServingError as error:
            failures += 1
            pause_s = policy.pause_s(failures)
            exhausted = failures >= policy.max_attempts or not deadline.allows(pause_s)
            if not error.retryable or exhausted:
                raise
        await pause(pause_s)
