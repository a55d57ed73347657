"""All models of the server, with their versions and labels.

References:
    `ValidateModelConfigList`, `GetPlatform` and `UpdateModelVersionLabelMap` in
    tensorflow_serving/model_servers/server_core.cc.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnknownError,
    code_name,
)
from serving.server import event_log
from serving.server.loaded_model import LoadedModel, exempt_imports_from_gc
from serving.server.model_versions import (
    LoadVersion,
    ModelVersions,
    VersionStatus,
    servable_not_found,
)

PLATFORM = "tensorflow"
_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.]*://")
_SETTLE_POLL_S = 0.05
# Pause between polls until each model has a version, even if `poll_wait_s` is 0.
_MISSING_POLL_S = 1.0


class ModelManager:
    """Registry of the models in the configuration, which it loads and keeps up to date.

    Args:
        load_version: Function that loads and warms up a version, or raises an error.
        poll_wait_s: Pause between two polls of the base paths; 0 polls only at start-up and after
            each change of the configuration.
        allows_unavailable_labels: Whether a new label may point to a version that is not available.
    """

    def __init__(
        self, load_version: LoadVersion, poll_wait_s: float, allows_unavailable_labels: bool = False
    ) -> None:
        self._load_version = load_version
        self._poll_wait_s = poll_wait_s
        self._allows_unavailable_labels = allows_unavailable_labels
        # Requests read these without a lock, so they are replaced and never modified in place.
        self._models: dict[str, ModelVersions] = {}
        self._labels: Mapping[str, Mapping[str, int]] = {}  # versions by label by model
        # The current `ModelServerConfig`.
        self.config = model_server_config_pb2.ModelServerConfig()
        self._is_stopping = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._keep_current, name="versions", daemon=True)

    def start(self) -> None:
        """Start a thread that polls the base paths and loads the models."""
        exempt_imports_from_gc()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop polling and unload all models, unless a load takes longer than `timeout_s`."""
        self._is_stopping = True
        self._changed.set()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            for model in self._models.values():
                model.unload_all()

    def configure(self, config: Any) -> set[str]:
        """Replace the configuration with a `ModelServerConfig`; models not in it are unloaded.

        Call this from a single thread. If an error is raised, nothing changes. Return the names of
        the models that were not in the configuration before.
        """
        if config.WhichOneof("config") == "custom_model_config":
            raise InvalidArgumentError("ModelServer does not yet support custom model config.")
        configs = config.model_config_list.config
        _check_model_configs(configs)
        for listed in configs:
            self._check_labels(listed)
        listed_before = {listed.name for listed in self.config.model_config_list.config}
        models = dict(self._models)
        for listed in configs:
            source = (listed.base_path, listed.model_version_policy)
            if listed.name in models:
                models[listed.name].configure(*source)
            else:
                models[listed.name] = ModelVersions(listed.name, *source, self._load_version)
        listed_now = {listed.name for listed in configs}
        for name in set(models) - listed_now:
            models[name].drop()
        self._models = models
        self._labels = {listed.name: dict(listed.version_labels) for listed in configs}
        self.config = model_server_config_pb2.ModelServerConfig()
        self.config.CopyFrom(config)
        self._changed.set()
        return listed_now - listed_before

    async def wait_until_settled(self, names: Iterable[str], *, waits_for_files: bool) -> None:
        """Wait until each of these models is available or has failed to load.

        With `waits_for_files`, wait also while a base path is missing or contains no version,
        which is an error otherwise.
        """
        waiting = [self._models[name] for name in names]
        while not all(
            model.is_settled or (model.problem and not waits_for_files) for model in waiting
        ):
            await asyncio.sleep(_SETTLE_POLL_S)
        failures = [cause for model in waiting for cause in _failures(model)]
        if failures:
            raise UnknownError(
                f"{len(failures)} model(s) did not become available: {'; '.join(failures)}"
            )

    def use(self, spec: model_pb2.ModelSpec) -> LoadedModel:
        """Return the version that `spec` refers to; a `with` block of it keeps it loaded."""
        name = spec.name
        if not name:
            raise InvalidArgumentError("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = spec.version.value if choice == "version" else None
        if choice == "version_label":
            version = self._labels.get(name, {}).get(spec.version_label)
            if version is None:
                raise InvalidArgumentError(
                    f"Unrecognized servable version label: {spec.version_label}"
                )
        model = self._models.get(name)
        if model is None:
            raise servable_not_found(name, version)
        return model.use(version)

    def statuses(self, spec: model_pb2.ModelSpec) -> list[VersionStatus]:
        """Return the state of one version, or of all versions of a model, newest first.

        A version label is ignored, as in TensorFlow Serving.
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

    def _check_labels(self, config: Any) -> None:
        model = self._models.get(config.name)
        current = self._labels.get(config.name, {})
        for label, version in sorted(config.version_labels.items()):
            is_moved = current.get(label, version) != version
            may_wait = self._allows_unavailable_labels and not is_moved
            if not may_wait and (model is None or version not in model.available):
                raise FailedPreconditionError(
                    f"Request to assign label to version {version} of model {config.name}, "
                    "which is not currently available for inference"
                )

    def _keep_current(self) -> None:
        while not self._is_stopping:
            self._changed.clear()
            for model in list(self._models.values()):
                try:
                    model.poll()
                except Exception as error:  # File system errors must not end the thread.
                    model.problem = repr(error)
                    event_log.error("poll_failed", model=model.name, error=repr(error))
                if self._is_stopping:
                    return
            self._changed.wait(self._pause_s())

    def _pause_s(self) -> float | None:
        """Return the seconds until the next poll, or None to wait for `configure` or `stop`."""
        models = list(self._models.values())
        if not all(model.is_settled for model in models):
            return _MISSING_POLL_S
        if self._poll_wait_s:
            return self._poll_wait_s
        wait_s = min((model.retry_wait_s() for model in models), default=math.inf)
        return None if wait_s == math.inf else max(_MISSING_POLL_S, wait_s)


def single_model_config(name: str, base_path: str) -> Any:
    """Return the `ModelServerConfig` for `--model_name` and `--model_base_path`."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=os.path.abspath(base_path), model_platform=PLATFORM
    )
    return config


def _check_model_configs(configs: Any) -> None:
    names = [config.name for config in configs]
    for config in configs:
        name = config.name
        if names.count(name) > 1:
            raise InvalidArgumentError(f"A model must be listed once, but {name} is listed again")
        if not os.path.isabs(config.base_path) and not _URL_SCHEME.match(config.base_path):
            raise InvalidArgumentError(
                f"base_path of model {name} must be an absolute path or a URI, but is "
                f"{config.base_path!r}"
            )
        # The field `model_type` is deprecated.
        if (config.model_platform, config.model_type) not in (
            (PLATFORM, model_server_config_pb2.MODEL_TYPE_UNSPECIFIED),
            ("", model_server_config_pb2.TENSORFLOW),
        ):
            raise InvalidArgumentError(
                f"Model {name} must have `model_platform: {PLATFORM!r}` and no model_type, but has "
                f"{config.model_platform!r} and {config.model_type}"
            )


def _failures(model: ModelVersions) -> Iterator[str]:
    """Yield why a model that is not available could not be loaded."""
    if model.available:
        return
    if not model.is_settled:
        yield f"{model.name}: {model.problem}"
    for version, row in model.statuses.items():
        if code := row.status.error_code:
            cause = f"{code_name(code)}: {row.status.error_message}"
            yield f"{model.name}, version {version}: {cause}"
