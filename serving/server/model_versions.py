"""The versions of one model, which are loaded and unloaded according to the version policy.

A new version is loaded and warmed up before an old one is unloaded, so that the model stays
available (TensorFlow Serving's `AvailabilityPreservingPolicy`). In the meantime, both are in
memory.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tensorflow_serving.apis import get_model_status_pb2

from serving.errors import NotFoundError, ServingError
from serving.server import event_log
from serving.server.loaded_model import LoadedModel, free_memory
from serving.server.predict import as_serving_error
from serving.server.version_folders import (
    FailedLoads,
    VersionFolder,
    aspired_versions,
    find_version_folders,
)

VersionStatus = get_model_status_pb2.ModelVersionStatus
LoadVersion = Callable[[VersionFolder], LoadedModel]

_REPEAT_WARNING_S = 60.0
# Longest wait of a poll for the last requests of a version, which is then closed in the background.
_UNLOAD_WAIT_S = 5.0


class ModelVersions:
    """The versions of one model, as found in its base path by `poll`.

    Call `poll` from a single thread. The other methods are thread-safe.

    `policy` is a `ServableVersionPolicy`; an empty one selects only the newest version.
    `load_version` loads and warms up a version, or raises an error.
    """

    def __init__(self, name: str, base_path: str, policy: Any, load_version: LoadVersion) -> None:
        self.name = name
        # A single tuple, so that the polling thread never sees a partial change. None means that
        # no version is served.
        self._source: tuple[str, Any] | None = (base_path, policy)
        self._load_version = load_version
        # Whether a poll has found versions and tried to load them, successfully or not.
        self.is_settled = False
        # Why the newest poll could not load any version, or None.
        self.problem: str | None = None
        # The versions that answer requests, and the status of each version since start-up. Requests
        # read these without a lock, so they are replaced and never modified in place.
        self.available: Mapping[int, LoadedModel] = {}
        self.statuses: Mapping[int, Any] = {}
        self._failed = FailedLoads()
        self._warned_at = -_REPEAT_WARNING_S
        self._lock = threading.Lock()

    def configure(self, base_path: str, policy: Any) -> None:
        """Change the base path and the version policy; the next `poll` applies them."""
        if self._source is None:
            self.is_settled = False
        self.problem = None
        self._source = (base_path, policy)
        self._failed.clear()

    def drop(self) -> None:
        """Stop serving the model; the next `poll` unloads its versions."""
        self._source = None

    def use(self, version: int | None) -> LoadedModel:
        """Return a version, for use in a `with` block that keeps it loaded."""
        while True:
            available = self.available
            wanted = max(available, default=None) if version is None else version
            model = available.get(wanted) if wanted is not None else None
            if model is None:
                raise servable_not_found(self.name, version)
            if model.try_acquire():
                return model
            # The version was unloaded after `_available` was read, so read it again.

    def poll(self) -> None:
        """Check the base path once; load new versions and unload those no longer wanted."""
        source = self._source
        if source is None:
            self.is_settled = True
            self._unload(set(self.available))
            return
        base_path, policy = source
        folders = find_version_folders(base_path)
        if folders is None:
            self._report_problem("base_path_missing", base_path)
            return
        aspired = aspired_versions(policy, folders)
        self._failed.keep_only(aspired - set(self.available))
        if not aspired:
            self._report_problem("no_versions_found", base_path)
        for version in sorted(aspired - set(self.available), reverse=True):
            # The older version serves requests until this one is loaded.
            if self._failed.allow(folders[version]):
                self._load(folders[version])
        if not aspired or aspired & set(self.available):
            self._unload(set(self.available) - aspired)
        if aspired and source is self._source:
            self.is_settled = True

    def retry_wait_s(self) -> float:
        """Return the seconds until the next retry of a failed load; infinity without one."""
        return math.inf if self._source is None else self._failed.wait_s()

    def unload_all(self) -> None:
        """Unload all versions, and cancel running requests."""
        self._unload(set(self.available), timeout_s=0)

    def _load(self, folder: VersionFolder) -> None:
        started_at = time.monotonic()
        event_log.info("version_loading", model=self.name, version=folder.version, path=folder.path)
        self._set_status(folder.version, VersionStatus.LOADING)
        fingerprint = folder.fingerprint()
        try:
            model = self._load_version(folder)
        except Exception as raised:  # A bad version must not end the thread.
            error = as_serving_error(raised)
            self._failed.record(folder, fingerprint)
            self._set_status(folder.version, VersionStatus.END, error)
            fields = {"code": error.code_name, "error": error.message}
            event_log.error("version_failed", model=self.name, version=folder.version, **fields)
            return
        self.available = {**self.available, folder.version: model}
        self._set_status(folder.version, VersionStatus.AVAILABLE)
        load_s = time.monotonic() - started_at
        event_log.info("version_available", model=self.name, version=folder.version, load_s=load_s)

    def _unload(self, versions: set[int], timeout_s: float | None = None) -> None:
        for version in sorted(versions):
            available = dict(self.available)
            model = available.pop(version)
            self.available = available
            self._set_status(version, VersionStatus.UNLOADING)
            closing = threading.Thread(target=self._close, args=(model, timeout_s), daemon=True)
            del model
            closing.start()
            # A request that does not end must not keep the next versions from loading.
            closing.join(_UNLOAD_WAIT_S)

    def _close(self, model: LoadedModel, timeout_s: float | None) -> None:
        version = model.version
        model.close(timeout_s)
        del model
        free_memory()
        if self.statuses[version].state == VersionStatus.UNLOADING:
            self._set_status(version, VersionStatus.END)
        event_log.info("version_unloaded", model=self.name, version=version)

    def _set_status(self, version: int, state: int, error: ServingError | None = None) -> None:
        status = VersionStatus(version=version, state=state)
        # Set even without an error, because TensorFlow Serving's JSON always has this field.
        status.status.error_code = error.grpc_code if error else 0
        status.status.error_message = error.message if error else ""
        with self._lock:
            self.statuses = {**self.statuses, version: status}

    def _report_problem(self, event: str, base_path: str) -> None:
        self.problem = f"{event.replace('_', ' ')}: {base_path}"
        now = time.monotonic()
        if now - self._warned_at >= _REPEAT_WARNING_S:
            self._warned_at = now
            event_log.warning(event, model=self.name, base_path=base_path)


def servable_not_found(name: str, version: int | None) -> NotFoundError:
    """Return the error for a model or version that is not available."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return NotFoundError(f"Servable not found for request: {wanted}")
