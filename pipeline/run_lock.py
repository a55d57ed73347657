"""One run of a configuration at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RunInProgressError(
                f"another run of this configuration is under way (process {lock.read().strip()}); "
                f"wait for it, or end it. The lock is {run_dir / 'lock'}"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
