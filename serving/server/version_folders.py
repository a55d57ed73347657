"""Finds the versions of a model that lie complete under its base path."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

SAVED_MODEL_FILE = "saved_model.pb"
MAX_VERSION = 2**63 - 1

Fingerprint = frozenset[tuple[str, int, int, int]]
"""Path, inode, bytes and time of change (ns) of each file of a version."""


@dataclasses.dataclass(frozen=True)
class VersionFolder:
    """One version on disk.

    Attributes:
        version: The number the folder is named by.
        path: The folder.
    """

    version: int
    path: Path

    def fingerprint(self) -> Fingerprint:
        """Look at every file: the variables of a copy may come after its `saved_model.pb`."""
        files: set[tuple[str, int, int, int]] = set()
        for folder, _, names in os.walk(self.path):
            for path in (os.path.join(folder, name) for name in names):
                try:
                    stat = os.stat(path)
                except OSError:  # Gone since, such as a copy's temporary name.
                    continue
                files.add((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return frozenset(files)


def find_version_folders(base_path: str | os.PathLike[str]) -> dict[int, VersionFolder] | None:
    """List the complete versions under `base_path`.

    A folder counts once `saved_model.pb` is in it: TFX's Pusher writes that file last, so a version
    that it copies stays invisible until it is whole; `failed_loads` is for other orders. Names that
    are no integers are ignored. Of two names for one number ("7", "007") the one that sorts last
    counts, as in TensorFlow Serving.

    Returns:
        The folders by version, or None if `base_path` is not there.
    """
    try:
        names = sorted(os.listdir(base_path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    folders: dict[int, VersionFolder] = {}
    for name in names:
        if not (name.isascii() and name.isdigit()) or int(name) > MAX_VERSION:
            continue
        path = Path(base_path) / name
        try:
            (path / SAVED_MODEL_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        folders[int(name)] = VersionFolder(int(name), path)
    return folders
