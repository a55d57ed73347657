"""Bring a release to running servers step by step, and keep it in the model config file."""

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
# A version whose load failed before stays listed as failed until its new load starts.
_OLD_FAILURE_S = 5.0


@dataclass(frozen=True)
class Rollout:
    """The rollout of a release to a server, or to all replicas of a server.

    A label may only move to a version that is loaded: otherwise TensorFlow Serving refuses it, or
    with `--allow_version_labels_for_unavailable_models` sends requests to a missing version. So
    versions are loaded first, then labels move, then unused versions are unloaded. Each step is
    made on all servers before the next one: a replica that sees only the last step in the file
    refuses it forever, because it checks the labels before it loads.

    Attributes:
        servers: The server, or all its replicas.
        file: The file that the servers read when they start. It is written before each step,
            because a server that polls it would otherwise return to the step before.
        timeout_s: How long versions may take to load.
    """

    servers: Sequence[ModelAdmin]
    file: ModelConfigFile
    timeout_s: float

    def apply(self, target: Release) -> dict[int, VersionStatus]:
        """Bring the servers from the file's release to `target`.

        Returns:
            The states of the versions afterwards; if servers differ, the least ready state.

        Raises:
            ReleaseError: A version does not become available; everything is as before.
            ServingError: A server cannot be reached or refuses; the file is as before, and so are
                the servers that can be reached.
        """
        before = self.file.release()
        # Find out whether the servers can be reached before anything is written.
        self._versions()
        try:
            with self.file.undone_on_error():
                self._send(before.loading(target))
                self._wait_until_available(set(target.labels.values()))
                self._send(before.relabelled(target))
                self._send(target)
        except BaseException:
            # The file is as before, but a server may have made some of the steps.
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
        """Return the least ready state of each version that every server lists."""
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
