"""The model config file of a server: `tensorflow.serving.ModelServerConfig` as text.

A server that is started with it has the same versions and labels after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from pipeline.releases.errors import ReleaseError
from pipeline.releases.release import Release
from serving.server.version_policy import aspired_versions

_PLATFORM = "tensorflow"


@dataclass(frozen=True)
class ModelConfigFile:
    """One model's part of a model config file; what the file says of other models stays.

    Attributes:
        path: The file; it need not be there yet.
        model_name: The model.
        base_path: Where the server finds the versions, used where the file does not say it.
    """

    path: Path
    model_name: str
    base_path: str

    def release(self) -> Release:
        """Returns what the file says of the model; nothing if it does not say anything.

        Raises:
            ReleaseError: The file cannot be read.
        """
        model = self._model(self._with_model())
        versions = model.model_version_policy.specific.versions
        return Release(frozenset(versions), dict(model.version_labels))

    def loaded_versions(self, present: Collection[int]) -> set[int]:
        """Returns the versions that a server loads which is started with the file.

        Args:
            present: The versions at its base path.

        Raises:
            ReleaseError: The file cannot be read.
        """
        return aspired_versions(self._model(self._with_model()).model_version_policy, present)

    def server_base_path(self) -> str:
        """Returns where the server finds the versions.

        Raises:
            ReleaseError: The file cannot be read.
        """
        return str(self._model(self._with_model()).base_path)

    def write(self, release: Release) -> bytes:
        """Writes a release, whole or not at all.

        Returns:
            The content as a server takes it over gRPC: a serialized `ModelServerConfig`.

        Raises:
            ReleaseError: The file cannot be read or written.
        """
        config = self._with_model()
        model = self._model(config)
        model.ClearField("model_version_policy")
        model.ClearField("version_labels")
        model.model_version_policy.specific.versions.extend(sorted(release.versions))
        for label, version in sorted(release.labels.items()):
            model.version_labels[label] = version
        self._replace(text_format.MessageToString(config))
        return _serialized(config)

    def as_it_is(self) -> bytes:
        """Returns the content as `write` does, unchanged.

        A model that the file lacks is added with its newest version, as a server has it that was
        started without a file.

        Raises:
            ReleaseError: The file cannot be read.
        """
        return _serialized(self._with_model())

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Puts the file back as it was if the block raises."""
        before = self.path.read_text(encoding="utf-8") if self.path.exists() else None
        try:
            yield
        except BaseException:
            if before is None:
                self.path.unlink(missing_ok=True)
            else:
                self._replace(before)
            raise

    def _with_model(self) -> model_server_config_pb2.ModelServerConfig:
        config = self._read()
        models = config.model_config_list.config
        if not any(model.name == self.model_name for model in models):
            models.add(name=self.model_name, base_path=self.base_path, model_platform=_PLATFORM)
        return config

    def _model(
        self, config: model_server_config_pb2.ModelServerConfig
    ) -> model_server_config_pb2.ModelConfig:
        models = config.model_config_list.config
        return next(model for model in models if model.name == self.model_name)

    def _read(self) -> model_server_config_pb2.ModelServerConfig:
        config = model_server_config_pb2.ModelServerConfig()
        try:
            text_format.Parse(self.path.read_text(encoding="utf-8"), config)
        except FileNotFoundError:
            return config
        except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
            raise ReleaseError(f"{self.path} cannot be read as a model config: {error}") from error
        return config

    def _replace(self, text: str) -> None:
        aside = self.path.with_name(f".{self.path.name}.incoming")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, self.path)
        except OSError as error:
            raise ReleaseError(f"{self.path} cannot be written: {error.strerror}") from error


def _serialized(config: model_server_config_pb2.ModelServerConfig) -> bytes:
    content: bytes = config.SerializeToString(deterministic=True)
    return content
