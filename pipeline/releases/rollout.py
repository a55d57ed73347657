"""Brings a release to running servers, step by step, and keeps it in the model config file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass

from pipeline.releases.errors import ReleaseError
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.releases.release import Release
from serving.clients.model import VersionStatus
from serving.clients.model_admin import ModelAdmin
from serving.errors import ServingError

_POLL_S = 0.2
# A version that failed before is listed as failed until its new load begins.
_OLD_FAILURE_S = 5.0


@dataclass(frozen=True)
class Rollout:
    """The way of a release to a server, or to all replicas of one.

    A label may go only to a version that is loaded: TensorFlow Serving refuses it otherwise, or,
    with `--allow_version_labels_for_unavailable_models`, sends requests to what is not there. So
    versions load first, then labels move, then what has no use any more is unloaded. Each step is
    made on all servers before the next one: a replica that only finds the last step in the file
    refuses it for ever, because it looks at the labels before it loads.

    Attributes:
        servers: One, or all replicas.
        file: What the servers read when they start. It is written before each step, because a
            server that polls it would else go back to the step before.
        timeout_s: How long versions may take to load.
    """

    servers: Sequence[ModelAdmin]
    file: ModelConfigFile
    timeout_s: float

    def bring(self, target: Release) -> dict[int, VersionStatus]:
        """Brings the server from what the file says to `target`.

        Returns:
            The states of the versions at the end, where servers differ the least ready one.

        Raises:
            ReleaseError: A version does not become available; everything is as before.
            ServingError: The server cannot be reached or refuses; the file is as before, and so
                is the server where it can be reached.
        """
        before = self.file.release()
        # A server that is not there is found out before anything is written.
        self._versions()
        try:
            with self.file.undone_on_error():
                self._send(before.loading(target))
                self._wait_until_available(set(target.labels.values()))
                self._send(before.relabelled(target))
                self._send(target)
        except BaseException:
            # The file is as before; a server may be somewhere on the way.
            for server in self.servers:
                with contextlib.suppress(ServingError):
                    server.reload_config(self.file.as_it_is(), self.timeout_s)
            raise
        return self._versions()

    def _send(self, release: Release) -> None:
        content = self.file.write(release)
        for server in self.servers:
            server.reload_config(content, self.timeout_s)

    def _versions(self) -> dict[int, VersionStatus]:
        """The states of versions that every server lists; of several the least ready one."""
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
        began_at = time.monotonic()
        while True:
            known = self._versions()
            waiting = [
                version
                for version in sorted(versions)
                if version not in known or not known[version].is_available
            ]
            if not waiting:
                return
            waited_s = time.monotonic() - began_at
            for version in waiting:
                status = known.get(version)
                failed = status and status.state == "END" and status.error_code != "OK"
                if waited_s > self.timeout_s or (failed and waited_s > _OLD_FAILURE_S):
                    raise ReleaseError(self._complaint(version, status, waited_s))
            time.sleep(_POLL_S)

    def _complaint(self, version: int, status: VersionStatus | None, waited_s: float) -> str:
        about = f"version {version} of {self.file.model_name!r} is not available"
        if status is None:
            return (
                f"{about}: after {waited_s:.0f} s a server does not list it; is it complete "
                f"under {self.file.server_base_path()}, as the server sees that path?"
            )
        if status.error_code != "OK":
            return f"{about}: its load failed with {status.error_code}: {status.error_message}"
        return (
            f"{about}: after {waited_s:.0f} s it is {status.state}; if it needs more time to load, "
            "give it --timeout"
        )
