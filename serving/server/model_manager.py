"""All models of the server: the look-up for requests, and the thread that keeps them current."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import InvalidArgumentError, NotFoundError, UnknownError
from serving.server import event_log, process_memory
from serving.server.failed_loads import LoadRetries
from serving.server.loaded_model import LoadedModel
from serving.server.model_config import check_model_configs
from serving.server.model_versions import (
    LoadVersion,
    ModelVersions,
    VersionStatus,
    servable_not_found,
)
from serving.server.version_labels import (
    Labels,
    UnavailableVersions,
    labelled_version,
    read_labels,
)

_SETTLE_POLL_S = 0.05
# Base paths that are still missing are looked for even where nothing else is polled.
_WAITING_S = 1.0


class ModelManager:
    """Finds the version that a request means, and loads what the configuration asks for.

    Args:
        load_version: Loads and warms up a version, or raises.
        poll_wait_s: Pause between two looks at the base paths; 0 looks only at start-up and after
            each change of the configuration.
        labels_of_unavailable: Whether versions that are not available may have labels.
        retries: How often a load that failed is tried again.
    """

    def __init__(
        self,
        load_version: LoadVersion,
        poll_wait_s: float,
        labels_of_unavailable: UnavailableVersions = UnavailableVersions.REFUSED,
        retries: LoadRetries = LoadRetries(),
    ) -> None:
        self._load_version = load_version
        self._poll_wait_s = poll_wait_s
        self._labels_of_unavailable = labels_of_unavailable
        self._retries = retries
        # Replaced as wholes, never changed: requests read them without a lock.
        self._models: dict[str, ModelVersions] = {}
        self._labels: Labels = {}
        self._config = model_server_config_pb2.ModelServerConfig()
        self._configuring = threading.Lock()
        self._is_stopping = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._keep_current, name="versions", daemon=True)

    def start(self) -> None:
        """Start to load models in the background."""
        process_memory.keep_what_is_there()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop watching and unload everything.

        Args:
            timeout_s: How long to wait for a load that is under way; after that everything is
                left to the end of the process. Running requests were given their time before.
        """
        self._is_stopping = True
        self._changed.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return
        for model in self._models.values():
            model.unload_all(timeout_s=0)

    def configure(self, config: Any) -> set[str]:
        """Take over a `ModelServerConfig` as a whole: models that it does not list are unloaded.

        Returns:
            The models that were not served before; `wait_until_available` waits for them.

        Raises:
            InvalidArgumentError: If the configuration cannot be; nothing changes then.
            FailedPreconditionError: If a label is for a version that is not available.
        """
        if config.WhichOneof("config") == "custom_model_config":
            raise InvalidArgumentError("ModelServer does not yet support custom model config.")
        configs = config.model_config_list.config
        with self._configuring:
            check_model_configs(configs)
            available = {name: model.available_versions for name, model in self._models.items()}
            labels = read_labels(configs, available, self._labels, self._labels_of_unavailable)
            listed_before = {listed.name for listed in self._config.model_config_list.config}
            models = dict(self._models)
            for listed in configs:
                model = models.get(listed.name)
                if model is None:
                    models[listed.name] = ModelVersions(
                        listed.name,
                        listed.base_path,
                        self._load_version,
                        listed.model_version_policy,
                        self._retries,
                    )
                else:
                    model.configure(listed.base_path, listed.model_version_policy)
            listed_now = {listed.name for listed in configs}
            for name in set(models) - listed_now:
                models[name].drop()
            self._models, self._labels = models, labels
            self._config = model_server_config_pb2.ModelServerConfig.FromString(
                config.SerializeToString()
            )
        self._changed.set()
        return listed_now - listed_before

    async def wait_until_available(self, names: Iterable[str]) -> None:
        """Wait until models are available.

        Raises:
            UnknownError: If one has failed to load.
        """
        waiting = [self._models[name] for name in names]
        while not all(model.is_settled for model in waiting):
            await asyncio.sleep(_SETTLE_POLL_S)
        problem = _describe_failures(waiting)
        if problem:
            raise UnknownError(problem)

    @property
    def config(self) -> Any:
        """The `ModelServerConfig` that is served."""
        return self._config

    def use(self, spec: model_pb2.ModelSpec) -> LoadedModel:
        """Return the version that `spec` means, held until it is released by a `with` block.

        Raises:
            InvalidArgumentError: If `spec` names no model, or a label that is not assigned.
            NotFoundError: If the model or version is not available.
        """
        name = spec.name
        if not name:
            raise InvalidArgumentError("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = None
        if choice == "version_label":
            version = labelled_version(self._labels, name, spec.version_label)
        elif choice == "version":
            version = spec.version.value
        model = self._models.get(name)
        if model is None:
            raise servable_not_found(name, version)
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
        while not self._is_stopping:
            self._changed.clear()
            for model in list(self._models.values()):
                try:
                    model.poll()
                except Exception as error:  # The watch must outlive a file system's bad moment.
                    event_log.error("poll_failed", model=model.name, error=repr(error))
                if self._is_stopping:
                    return
            self._changed.wait(self._pause_s())

    def _pause_s(self) -> float | None:
        """Return the seconds to the next look; None if only a change asks for one."""
        if not self._is_settled():
            return _WAITING_S
        if self._poll_wait_s:
            return self._poll_wait_s
        retries_s = [model.retry_wait_s() for model in list(self._models.values())]
        due_s = [wait_s for wait_s in retries_s if wait_s is not None]
        return max(_WAITING_S, min(due_s)) if due_s else None

    def _is_settled(self) -> bool:
        return all(model.is_settled for model in self._models.values())


def _describe_failures(models: Iterable[ModelVersions]) -> str | None:
    """Return what keeps models from being available, in the words of TensorFlow Serving."""
    failures = []
    for model in models:
        if model.available_versions:
            continue
        for status in model.statuses.values():
            if status.error:
                cause = f"{status.error.code_name()}: {status.error.message}"
                failures.append(
                    f"{{{{name: {model.name} version: {status.version}}} due to error: {cause}}}, "
                )
    if not failures:
        return None
    return f"{len(failures)} model(s) did not become available: {{{''.join(failures)}}}"
