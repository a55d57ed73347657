"""The versions whose load failed, and when each is worth another try.

A copy that is under way when the server looks may have its `saved_model.pb` and not yet all of its
variables: that version is tried again once its folder has changed and stands still. What may pass
by itself, such as a lack of memory or a store's bad moment, is tried again after a pause.

References:
    `LoaderHarness::Load` in tensorflow_serving/core/loader_harness.cc, and util/retrier.cc.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection

from serving.server.version_folders import Fingerprint, VersionFolder


@dataclasses.dataclass(frozen=True)
class LoadRetries:
    """How often a load is tried again though nothing has changed.

    Attributes:
        max_retries: Tries after the first one.
        interval_s: Pause before each of them.
    """

    max_retries: int = 5
    interval_s: float = 60.0


@dataclasses.dataclass
class _Failure:
    tried: Fingerprint
    last_seen: Fingerprint
    retries_left: int
    retry_at_s: float


class FailedLoads:
    """What failed; used by one thread alone, but for `clear`.

    Args:
        retries: How often to try again.
        clock: Seconds that only grow.
    """

    def __init__(self, retries: LoadRetries, clock: Callable[[], float] = time.monotonic) -> None:
        self._retries = retries
        self._clock = clock
        self._failures: dict[int, _Failure] = {}

    def record(self, folder: VersionFolder, fingerprint: Fingerprint) -> None:
        """Note that a version could not be loaded.

        Args:
            folder: The version.
            fingerprint: Of the folder before the load, which may have missed what came meanwhile.
        """
        before = self._failures.get(folder.version)
        is_same = before is not None and before.tried == fingerprint
        left = before.retries_left - 1 if before and is_same else self._retries.max_retries
        self._failures[folder.version] = _Failure(
            fingerprint, fingerprint, left, self._clock() + self._retries.interval_s
        )

    def allow(self, folder: VersionFolder) -> bool:
        """Tell whether a version may be loaded now: it never failed, or is worth another try."""
        failure = self._failures.get(folder.version)
        if failure is None:
            return True
        now = folder.fingerprint()
        # Not while it changes from look to look: half of a copy would fail again.
        stands_still, failure.last_seen = now == failure.last_seen, now
        if now != failure.tried:
            return stands_still
        return failure.retries_left > 0 and self._clock() >= failure.retry_at_s

    def keep_only(self, versions: Collection[int]) -> None:
        """Forget the failures of all other versions."""
        for version in set(self._failures) - set(versions):
            self._failures.pop(version, None)

    def clear(self) -> None:
        """Forget all: each gets another try."""
        self._failures = {}

    def wait_s(self) -> float | None:
        """Return the seconds until the next retry is due; None if none will be."""
        due_s = [failure.retry_at_s for failure in self._failures.values() if failure.retries_left]
        return max(0.0, min(due_s) - self._clock()) if due_s else None
