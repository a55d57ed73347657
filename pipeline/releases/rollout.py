"""Rollout of a release to running servers and to their model config file, in safe steps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass

from pipeline.errors import ReleaseError
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.releases.release import Release
from serving.clients.model import VersionStatus
from serving.clients.model_admin import ModelAdmin
from serving.errors import ServingError

_POLL_S = 0.2
# A version that failed to load earlier is listed as failed until its next load starts.
_OLD_FAILURE_S = 5.0


@dataclass(frozen=True)
class Rollout:
    """The rollout of a release to a server, or to all replicas of a server.

    A label may only move to a version that is loaded. Otherwise TensorFlow Serving refuses it or,
    with `--allow_version_labels_for_unavailable_models`, sends requests to a missing version. So
    versions are loaded first, then labels move, then unused versions are unloaded. All servers
    finish a step before the next one starts: a replica that polls the file and sees only the last
    step would refuse it forever, because servers check labels before they load versions.

    Attributes:
        servers: The server, or all its replicas.
        file: The file that the servers read when they start. It is written before each step,
            because servers that poll it would otherwise undo the step.
        timeout_s: Maximum time for versions to load, in seconds.
    """

    servers: Sequence[ModelAdmin]
    file: ModelConfigFile
    timeout_s: float

    def apply(self, target: Release) -> dict[int, VersionStatus]:
        """Change servers and file from the file's release to `target`; return the state by version.

        If this fails, the file and all servers that can be reached are restored. If the
        servers' states of a version differ, an unavailable one is returned.

        Raises:
            ReleaseError: A version does not become available.
            ServingError: A server cannot be reached or refuses the release.
        """
        before = self.file.release()
        # Raise an error before anything is written if a server cannot be reached.
        self._versions()
        try:
            with self.file.undone_on_error():
                self._send(before.loading(target))
                self._wait_until_available(set(target.labels.values()))
                self._send(before.relabelled(target))
                self._send(target)
        except BaseException:
            # The file has been restored, but servers may have completed some of the steps.
            for server in self.servers:
                with contextlib.suppress(ServingError):
                    server.reload_config(self.file.serialized(), self.timeout_s)
            raise
        return self._versions()

    def _send(self, release: Release) -> None:
        content = self.file.write(release)
        for server in self.servers:
            server.reload_config(content, self.timeout_s)

    def _versions(self) -> dict[int, VersionStatus]:
        """Return the state of each version that all servers list, preferring unavailable states."""
        merged: dict[int, VersionStatus] | None = None
        for server in self.servers:
            listed = server.versions(self.file.model_name, self.timeout_s)
            if merged is None:
                merged = listed
                continue
            merged = {
                version: status if not status.is_available else merged[version]
                for version, status in listed.items()
                if version in merged
            }
        return merged or {}

    def _wait_until_available(self, versions: Set[int]) -> None:
        started_at = time.monotonic()
        while True:
            known = self._versions()
            waiting = [
                version
                for version in sorted(versions)
                if version not in known or not known[version].is_available
            ]
            if not waiting:
                return
            waited_s = time.monotonic() - started_at
            for version in waiting:
                status = known.get(version)
                failed = status and status.state == "END" and status.error_code != "OK"
                if waited_s > self.timeout_s or (failed and waited_s > _OLD_FAILURE_S):
                    raise ReleaseError(self._problem(version, status, waited_s))
            time.sleep(_POLL_S)

    def _problem(self, version: int, status: VersionStatus | None, waited_s: float) -> str:
        about = f"version {version} of {self.file.model_name!r} must become available"
        if status is None:
            return (
                f"{about}, but after {waited_s:.0f} s a server does not list it. Is it complete "
                f"under {self.file.server_base_path()}, as the server sees this path?"
            )
        if status.error_code != "OK":
            return f"{about}, but loading it failed: {status.error_code}: {status.error_message}"
        return (
            f"{about}, but after {waited_s:.0f} s its state is {status.state}. If it needs more "
            "time to load, give --timeout"
        )
