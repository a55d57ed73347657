"""All models of the server: the look-up for requests, and the thread that keeps them current."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tensorflow_serving.apis import model_pb2

from serving.errors import InvalidArgumentError, NotFoundError
from serving.model_server import event_log
from serving.model_server.loaded_model import LoadedModel
from serving.model_server.model_versions import (
    ModelVersions,
    State,
    VersionStatus,
    servable_not_found,
)


class ModelManager:
    """Finds the version that a request means.

    Args:
        models: The models to serve.
        poll_wait_s: Pause between two looks at the base paths; 0 looks at start-up only.
    """

    def __init__(self, models: Sequence[ModelVersions], poll_wait_s: float) -> None:
        self._models = {model.name: model for model in models}
        self._poll_wait_s = poll_wait_s
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._keep_current, name="versions", daemon=True)

    def start(self) -> None:
        """Start to load models in the background."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop watching and unload everything.

        Args:
            timeout_s: How long to wait for a load that is under way; after that everything is
                left to the end of the process. Running requests were given their time before.
        """
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return
        for model in self._models.values():
            model.unload_all(timeout_s=0)

    @property
    def settled(self) -> threading.Event:
        """Set once each model is available or has failed to load."""
        return self._settled

    def startup_error(self) -> str | None:
        """Return what keeps the server from starting, or None once all models are available."""
        failures = []
        for name, model in self._models.items():
            statuses = model.statuses.values()
            if any(status.state == State.AVAILABLE for status in statuses):
                continue
            for status in statuses:
                cause = (
                    f" due to error: {status.error.code_name()}: {status.error.message}"
                    if status.error
                    else ""
                )
                failures.append(f"{{{{name: {name} version: {status.version}}}{cause}}}, ")
        if not failures:
            return None
        return f"{len(failures)} model(s) did not become available: {{{''.join(failures)}}}"

    def use(self, spec: model_pb2.ModelSpec) -> LoadedModel:
        """Return the version that `spec` means, held until it is released by a `with` block.

        Raises:
            InvalidArgumentError: If `spec` names no model, or a label that is not assigned.
            NotFoundError: If the model or version is not available.
        """
        if not spec.name:
            raise InvalidArgumentError("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise InvalidArgumentError(f"Unrecognized servable version label: {spec.version_label}")
        version = spec.version.value if choice == "version" else None
        model = self._models.get(spec.name)
        if model is None:
            raise servable_not_found(spec.name, version)
        return model.use(version)

    def statuses(self, spec: model_pb2.ModelSpec) -> list[VersionStatus]:
        """Return the states of one version, or of all versions of a model, newest first.

        A version label is ignored, as in TensorFlow Serving.

        Raises:
            NotFoundError: If there is no such version or no version at all.
        """
        model = self._models.get(spec.name)
        known = model.statuses if model else {}
        if spec.HasField("version"):
            version = spec.version.value
            if version not in known:
                raise NotFoundError(f"Could not find version {version} of model {spec.name}")
            return [known[version]]
        if not known:
            raise NotFoundError(f"Could not find any versions of model {spec.name}")
        return [known[version] for version in sorted(known, reverse=True)]

    def _keep_current(self) -> None:
        while True:
            for model in self._models.values():
                try:
                    model.poll()
                except Exception as error:  # The watch must outlive a file system's bad moment.
                    event_log.error("poll_failed", model=model.name, error=repr(error))
                if self._stopping.is_set():
                    return
            if all(model.statuses for model in self._models.values()):
                self._settled.set()
            if self._poll_wait_s == 0 and self._settled.is_set():
                return
            if self._stopping.wait(self._poll_wait_s or 1.0):
                return
