"""Finds the versions of a model that lie complete under its base path."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

SAVED_MODEL_FILE = "saved_model.pb"
MAX_VERSION = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class VersionFolder:
    """One complete version on disk.

    Attributes:
        version: The number the folder is named by.
        path: The folder.
        fingerprint: Changes when the SavedModel in the folder is replaced, so that a version
            that failed to load is tried again once it was repaired.
    """

    version: int
    path: Path
    fingerprint: tuple[int, int, int]


def find_version_folders(base_path: str | os.PathLike[str]) -> dict[int, VersionFolder] | None:
    """List the complete versions under `base_path`.

    A folder counts once `saved_model.pb` is in it: TFX's Pusher writes that file last, so a
    half-copied version stays invisible. Names that are no integers are ignored. Of two names for
    one number ("7", "007") the one that sorts last counts, as in TensorFlow Serving.

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
            stat = (path / SAVED_MODEL_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        fingerprint = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        folders[int(name)] = VersionFolder(int(name), path, fingerprint)
    return folders
