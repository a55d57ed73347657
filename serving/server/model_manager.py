"""All models of the server, with their versions and labels.

References:
    `ValidateModelConfigList`, `GetPlatform` and `UpdateModelVersionLabelMap` in
    tensorflow_serving/model_servers/server_core.cc.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnknownError,
)
from serving.server import event_log
from serving.server.loaded_model import LoadedModel, exempt_imports_from_gc
from serving.server.model_versions import (
    LoadVersion,
    ModelVersions,
    VersionStatus,
    servable_not_found,
)
from serving.server.version_folders import LoadRetries

PLATFORM = "tensorflow"

Labels = Mapping[str, Mapping[str, int]]
"""Versions by label by model."""

_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.]*://")
_SETTLE_POLL_S = 0.05
# Pause between polls until each model has a version, even if `poll_wait_s` is 0.
_MISSING_POLL_S = 1.0


class ModelManager:
    """Registry of the models in the configuration, which it loads and keeps up to date.

    Args:
        load_version: Function that loads and warms up a version, or raises an error.
        poll_wait_s: Pause between two polls of the base paths in seconds; 0 polls only at start-up
            and after each change of the configuration.
        allows_unavailable_labels: Whether a new label may point to a version that is not available.
        retries: Limits for retries of a failed load.
    """

    def __init__(
        self,
        load_version: LoadVersion,
        poll_wait_s: float,
        allows_unavailable_labels: bool = False,
        retries: LoadRetries = LoadRetries(),
    ) -> None:
        self._load_version = load_version
        self._poll_wait_s = poll_wait_s
        self._allows_unavailable_labels = allows_unavailable_labels
        self._retries = retries
        # Requests read these without a lock, so they are replaced and never modified in place.
        self._models: dict[str, ModelVersions] = {}
        self._labels: Labels = {}
        self._config = model_server_config_pb2.ModelServerConfig()
        self._configuring = threading.Lock()
        self._is_stopping = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._keep_current, name="versions", daemon=True)

    def start(self) -> None:
        """Start a thread that polls the base paths and loads the models."""
        exempt_imports_from_gc()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop polling and unload all models.

        Args:
            timeout_s: Time limit of the wait for a load in progress. If it is exceeded, the models
                stay in memory until the process exits.
        """
        self._is_stopping = True
        self._changed.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return
        for model in self._models.values():
            model.unload_all(timeout_s=0)

    def configure(self, config: Any) -> set[str]:
        """Replace the configuration with a `ModelServerConfig`; models not in it are unloaded.

        If an error is raised, nothing changes.

        Returns:
            The names of the models that were not in the configuration before, for
            `wait_until_available`.

        Raises:
            InvalidArgumentError: If the configuration is invalid.
            FailedPreconditionError: If a label points to a version that is not available.
        """
        if config.WhichOneof("config") == "custom_model_config":
            raise InvalidArgumentError("ModelServer does not yet support custom model config.")
        configs = config.model_config_list.config
        with self._configuring:
            _check_model_configs(configs)
            labels = self._read_labels(configs)
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
        """Wait until each of these models is available or has failed to load.

        Raises:
            UnknownError: If a model has no available version because a load failed.
        """
        waiting = [self._models[name] for name in names]
        while not all(model.is_settled for model in waiting):
            await asyncio.sleep(_SETTLE_POLL_S)
        problem = _describe_failures(waiting)
        if problem:
            raise UnknownError(problem)

    @property
    def config(self) -> Any:
        """The current `ModelServerConfig`."""
        return self._config

    def use(self, spec: model_pb2.ModelSpec) -> LoadedModel:
        """Return the version that `spec` refers to, for use in a `with` block that keeps it loaded.

        Raises:
            InvalidArgumentError: If `spec` has no model name, or an unknown label.
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
        """Return the state of one version, or of all versions of a model, newest first.

        A version label is ignored, as in TensorFlow Serving.

        Raises:
            NotFoundError: If the model has no such version, or no version at all.
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

    def _read_labels(self, configs: Any) -> Labels:
        labels: dict[str, dict[str, int]] = {}
        for config in configs:
            model = self._models.get(config.name)
            available: Collection[int] = model.available_versions if model else ()
            current = self._labels.get(config.name, {})
            for label, version in sorted(config.version_labels.items()):
                is_moved = current.get(label, version) != version
                may_wait = self._allows_unavailable_labels and not is_moved
                if version not in available and not may_wait:
                    raise FailedPreconditionError(
                        f"Request to assign label to version {version} of model {config.name}, "
                        "which is not currently available for inference"
                    )
                labels.setdefault(config.name, {})[label] = version
        return labels

    def _keep_current(self) -> None:
        while not self._is_stopping:
            self._changed.clear()
            for model in list(self._models.values()):
                try:
                    model.poll()
                except Exception as error:  # File system errors must not end the thread.
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
        retries_s = [model.retry_wait_s() for model in models]
        due_s = [wait_s for wait_s in retries_s if wait_s is not None]
        return max(_MISSING_POLL_S, min(due_s)) if due_s else None


def single_model_config(name: str, base_path: str) -> Any:
    """Return the `ModelServerConfig` for `--model_name` and `--model_base_path`."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=os.path.abspath(base_path), model_platform=PLATFORM
    )
    return config


def labelled_version(labels: Labels, model: str, label: str) -> int:
    """Return the version that a label points to.

    Raises:
        InvalidArgumentError: If the model has no such label.
    """
    try:
        return labels[model][label]
    except KeyError:
        raise InvalidArgumentError(f"Unrecognized servable version label: {label}") from None


def _check_model_configs(configs: Any) -> None:
    names: set[str] = set()
    for config in configs:
        name = config.name
        if name in names:
            raise InvalidArgumentError(
                f"Illegal to list model {name} multiple times in config list"
            )
        names.add(name)
        if not os.path.isabs(config.base_path) and not _URL_SCHEME.match(config.base_path):
            raise InvalidArgumentError(
                f"Expected model {name} to have an absolute path or URI; got "
                f"base_path()={config.base_path}"
            )
        if bool(config.model_type) == bool(config.model_platform):
            which = "both" if config.model_type else "neither"
            join = "and" if config.model_type else "nor"
            raise InvalidArgumentError(
                f"Illegal setting {which} ModelServerConfig::model_type (deprecated) {join} "
                f"ModelServerConfig::model_platform, model name is {name}"
            )
        is_tensorflow = config.model_type == model_server_config_pb2.TENSORFLOW
        platform = config.model_platform or (PLATFORM if is_tensorflow else config.model_type)
        if platform != PLATFORM:
            raise InvalidArgumentError(f"Model {name} requests unsupported platform {platform}")


def _describe_failures(models: Iterable[ModelVersions]) -> str | None:
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
