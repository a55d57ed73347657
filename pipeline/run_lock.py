"""One run of a configuration at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ATTEMPTS = 4
_PAUSE_S = 0.05


class RunInProgressError(Exception):
    """Another run of this configuration is under way; try again when it has ended."""


def is_locked(run_dir: Path) -> bool:
    """Whether a run is under way."""
    try:
        with open(run_dir / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Holds a lock that a killed process gives up by itself.

    Args:
        run_dir: Folder of the configuration's runs; it is made.

    Raises:
        RunInProgressError: Another process holds the lock; the message names it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / "lock", "a+") as lock:
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                # Who only looks, in `is_locked`, holds it for an instant.
                if attempt + 1 < _ATTEMPTS:
                    time.sleep(_PAUSE_S)
                    continue
                lock.seek(0)
                raise RunInProgressError(
                    "another run of this configuration is under way (process "
                    f"{lock.read().strip()}); wait for it, or end it. The lock is "
                    f"{run_dir / 'lock'}"
                ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
