"""One run of a configuration at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Who only looks, in `is_locked`, holds it for an instant.
_LOOKING_S = 0.15
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


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
def run_lock(run_dir: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Holds a lock that a killed process gives up by itself.

    Args:
        run_dir: Folder of the configuration's runs; it is made.
        wait_s: How long another process may hold it yet.

    Raises:
        RunInProgressError: Another process holds the lock; the message names it.
    """
    pause_s = _FIRST_PAUSE_S
    give_up_s = time.monotonic() + max(wait_s, _LOOKING_S)
    while True:
        run_dir.mkdir(parents=True, exist_ok=True)
        with open(run_dir / "lock", "a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > give_up_s:
                    lock.seek(0)
                    raise RunInProgressError(
                        "another run of this configuration is under way (process "
                        f"{lock.read().strip()}); wait for it, or end it. The lock is "
                        f"{run_dir / 'lock'}"
                    ) from error
            else:
                if _is_at(lock, run_dir / "lock"):
                    lock.truncate(0)
                    lock.write(str(os.getpid()))
                    lock.flush()
                    yield
                    return
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file still lies there; a lock on one that was removed keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
