"""A folder that appears whole or not at all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.datasets.errors import DestinationError


@contextmanager
def atomic_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder beside `destination` that takes its place when the block ends well.

    If the block raises, `destination` is as it was. What a killed process left behind is removed
    by the next one.

    Args:
        destination: the folder to make; one that is there already is replaced.

    Yields:
        The folder to write into.

    Raises:
        DestinationError: the folder or its parent cannot be written.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(destination)
        partial = Path(tempfile.mkdtemp(prefix=_prefix(destination), dir=destination.parent))
        partial.chmod(0o755)  # mkdtemp gives 0o700, and this folder is to be read by others
    except OSError as error:
        raise DestinationError(
            f"{destination.parent} must be a folder that can be written, got: {error}. "
            "Give another one with --data-dir."
        ) from error
    # The kernel drops the lock with the process, so an unlocked folder has no owner any more.
    lock = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield partial
        _replace(destination, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


def _prefix(destination: Path) -> str:
    return f".{destination.name}.partial-"


def _remove_abandoned(destination: Path) -> None:
    for folder in destination.parent.glob(f"{_prefix(destination)}*"):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # another process is writing it now
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _replace(destination: Path, partial: Path) -> None:
    """Rename `partial` to `destination`; a folder cannot be renamed onto one that holds files."""
    try:
        if not destination.exists():
            partial.rename(destination)
            return
        with tempfile.TemporaryDirectory(
            prefix=_prefix(destination), dir=destination.parent, ignore_cleanup_errors=True
        ) as aside:
            old = destination.rename(Path(aside) / "old")
            try:
                partial.rename(destination)
            except OSError:
                old.rename(destination)
                raise
    except OSError as error:
        raise DestinationError(
            f"{destination} could not be put in place: {error}. "
            "Close what uses it, or give another folder with --data-dir."
        ) from error
