"""The run lock, which prevents concurrent runs of a project on one machine."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import RunInProgressError

# `run_lock` retries for at least this time, because `is_locked` briefly holds the lock.
_LEAST_WAIT_S = 0.15
_PAUSE_S = 0.05


def is_locked(run_dir: Path) -> bool:
    """Return whether a process holds the run lock."""
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
    """Hold the run lock during a block, after at most `wait_s` seconds of waiting for it.

    The kernel releases it if the process is killed. The folder is created if it does not exist.

    Raises:
        RunInProgressError: Another process holds the lock. The message contains its process ID.
    """
    give_up_s = time.monotonic() + max(wait_s, _LEAST_WAIT_S)
    while True:
        run_dir.mkdir(parents=True, exist_ok=True)
        with open(run_dir / "lock", "a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > give_up_s:
                    lock.seek(0)
                    raise RunInProgressError(
                        "another run of this configuration is in progress (process "
                        f"{lock.read().strip()}, lock file {run_dir / 'lock'}). Wait for it, for "
                        "example with --wait SECONDS, or end it"
                    ) from error
            else:
                if _is_current(lock, run_dir / "lock"):
                    lock.truncate(0)
                    lock.write(str(os.getpid()))
                    lock.flush()
                    yield
                    return
        time.sleep(_PAUSE_S)


def _is_current(file: IO[str], path: Path) -> bool:
    """Return whether `path` is still the open file; a lock on a removed file has no effect."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
