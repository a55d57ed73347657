"""Find complete version folders, apply the version policy, and decide when to retry a load.

References:
    In tensorflow_serving: sources/storage_path/file_system_storage_path_source.cc for the version
    policies; core/loader_harness.cc and util/retrier.cc for the retries.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tensorflow_serving.config import file_system_storage_path_source_pb2

SAVED_MODEL_FILE = "saved_model.pb"
MAX_VERSION = 2**63 - 1

# Limits for a failed load whose folder has not changed, as in TensorFlow Serving.
_MAX_RETRIES = 5
_RETRY_INTERVAL_S = 60.0

VersionPolicy = (
    file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy
)

Fingerprint = frozenset[tuple[str, int, int, int]]
"""Path, inode, size and modification time (ns) of each file of a version."""


@dataclasses.dataclass(frozen=True)
class VersionFolder:
    """A version on disk."""

    version: int
    path: Path

    def fingerprint(self) -> Fingerprint:
        """Return path, inode, size and modification time of each file in the folder.

        All files are included, because a copy may write `saved_model.pb` before the variables.
        """
        files: set[tuple[str, int, int, int]] = set()
        for folder, _, names in os.walk(self.path):
            for path in (os.path.join(folder, name) for name in names):
                # A temporary file of a copy may no longer exist.
                with contextlib.suppress(OSError):
                    stat = os.stat(path)
                    files.add((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return frozenset(files)


def find_version_folders(base_path: str | os.PathLike[str]) -> dict[int, VersionFolder] | None:
    """Return the complete version folders in `base_path`.

    A folder is considered complete if it contains `saved_model.pb`, which TFX's Pusher writes last.
    `FailedLoads` handles copies in another order. Folders whose names are not integers are ignored.
    If two names have the same number ("7", "007"), the last one in sort order is used. Return None
    if `base_path` does not exist.
    """
    try:
        names = sorted(os.listdir(base_path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    folders: dict[int, VersionFolder] = {}
    for name in names:
        if not (name.isascii() and name.isdigit()) or int(name) > MAX_VERSION:
            continue
        path = Path(base_path, name)
        if (path / SAVED_MODEL_FILE).exists():
            folders[int(name)] = VersionFolder(int(name), path)
    return folders


def aspired_versions(policy: Any, found: Collection[int]) -> set[int]:
    """Return the versions on disk that a policy selects; an empty policy selects the newest."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(found)
    if choice == "specific":
        return set(found) & set(policy.specific.versions)
    return set(sorted(found)[-max(policy.latest.num_versions, 1) :])


@dataclasses.dataclass
class _Failure:
    tried: Fingerprint
    last_seen: Fingerprint
    retries_left: int
    retry_at_s: float


class FailedLoads:
    """The versions that failed to load, and the times of their retries.

    A changed folder, which may have been an incomplete copy, is retried when it has not changed
    between two polls. An unchanged folder is retried after a pause, because a lack of memory or a
    storage error may be temporary.

    Only `clear` is thread-safe.
    """

    def __init__(self) -> None:
        self._failures: dict[int, _Failure] = {}

    def record(self, folder: VersionFolder, fingerprint: Fingerprint) -> None:
        """Record a failed load, given the folder's fingerprint before that load."""
        before = self._failures.get(folder.version)
        is_unchanged = before is not None and before.tried == fingerprint
        left = before.retries_left - 1 if before and is_unchanged else _MAX_RETRIES
        retry_at_s = time.monotonic() + _RETRY_INTERVAL_S
        self._failures[folder.version] = _Failure(fingerprint, fingerprint, left, retry_at_s)

    def allow(self, folder: VersionFolder) -> bool:
        """Return whether a version should be loaded now."""
        failure = self._failures.get(folder.version)
        if failure is None:
            return True
        now = folder.fingerprint()
        is_stable, failure.last_seen = now == failure.last_seen, now
        if now != failure.tried:
            return is_stable
        return failure.retries_left > 0 and time.monotonic() >= failure.retry_at_s

    def keep_only(self, versions: Collection[int]) -> None:
        """Forget the failures of all versions that are not in `versions`."""
        for version in set(self._failures) - set(versions):
            self._failures.pop(version, None)

    def clear(self) -> None:
        """Forget all failures, so that the next poll loads the versions again."""
        self._failures = {}

    def wait_s(self) -> float:
        """Return the seconds until the next retry of an unchanged folder; infinity without one."""
        due_s = [failure.retry_at_s for failure in self._failures.values() if failure.retries_left]
        return max(0.0, min(due_s, default=math.inf) - time.monotonic())
