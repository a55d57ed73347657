"""Tries again what may succeed a moment later, within the caller's time."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
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
    """

    max_attempts: int = 3
    first_pause_s: float = 0.05

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures."""
        return self.first_pause_s * 2.0 ** (failures - 1) * random.uniform(0.5, 1.0)


def call_with_retries(call: Callable[[float], _T], policy: RetryPolicy, timeout_s: float) -> _T:
    """Call until it succeeds, a retry cannot help, or attempts or time run out.

    Args:
        call: Gets the seconds that are left.
        policy: How often to try.
        timeout_s: The time for all attempts together.

    Raises:
        ServingError: The last attempt's.
    """
    deadline = time.monotonic() + timeout_s
    failures = 0
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceededError(f"No answer within {timeout_s:g} s")
        try:
            return call(left_s)
        except ServingError as error:
            failures += 1
            pause_s = policy.pause_s(failures)
            out_of_time = time.monotonic() + pause_s >= deadline
            if not error.retryable or failures >= policy.max_attempts or out_of_time:
                raise
        time.sleep(pause_s)
