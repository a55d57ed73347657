"""Which of the versions on disk are to be served.

References:
    `AspireLatestVersions`, `AspireAllVersions` and `AspireSpecificVersions` in
    tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tensorflow_serving.config import file_system_storage_path_source_pb2

VersionPolicy = (
    file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy
)


def aspired_versions(policy: Any, found: Collection[int]) -> set[int]:
    """Return the versions that a policy asks for.

    Args:
        policy: A `VersionPolicy`; an empty one means the newest version.
        found: The complete versions on disk.
    """
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(found)
    if choice == "specific":
        return set(found) & set(policy.specific.versions)
    return set(sorted(found)[-max(policy.latest.num_versions, 1) :])
