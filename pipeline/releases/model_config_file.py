"""Access to a server's model config file: a `tensorflow.serving.ModelServerConfig` as text.

The server reads the file when it starts, so versions and labels survive a restart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.files import write_text
from pipeline.errors import ReleaseError
from pipeline.releases.release import Release
from serving.server.version_folders import aspired_versions

_PLATFORM = "tensorflow"


@dataclass(frozen=True)
class ModelConfigFile:
    """The entry of one model in a model config file; entries of other models are not changed.

    All methods raise ReleaseError if the file cannot be read or written.

    Attributes:
        path: Path of the file, which need not exist.
        base_path: Base path of the versions, for a file without an entry of the model.
    """

    path: Path
    model_name: str
    base_path: str

    def release(self) -> Release:
        """Return the release of the model; it is empty if the file has no entry of the model."""
        _, model = self._parsed()
        versions = model.model_version_policy.specific.versions
        return Release(frozenset(versions), dict(model.version_labels))

    def loaded_versions(self, present: Collection[int]) -> set[int]:
        """Return the subset of the `present` versions that a server with this file loads."""
        return aspired_versions(self._parsed()[1].model_version_policy, present)

    def server_base_path(self) -> str:
        """Return the base path of the versions on the server's machine."""
        return str(self._parsed()[1].base_path)

    def write(self, release: Release) -> bytes:
        """Write a release to the file atomically; return its content as `serialized` does."""
        config, model = self._parsed()
        model.ClearField("model_version_policy")
        model.ClearField("version_labels")
        model.model_version_policy.specific.versions.extend(sorted(release.versions))
        for label, version in sorted(release.labels.items()):
            model.version_labels[label] = version
        self._replace(text_format.MessageToString(config))
        return _serialized(config)

    def serialized(self) -> bytes:
        """Return the file's content as a serialized `ModelServerConfig`, for the server's gRPC API.

        If the file has no entry of the model, one without a version policy is added, so the server
        loads the newest version, as it does without a file.
        """
        return _serialized(self._parsed()[0])

    @contextlib.contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Restore the content of the file if the block raises."""
        before = self.path.read_text(encoding="utf-8") if self.path.exists() else None
        try:
            yield
        except BaseException:
            if before is None:
                self.path.unlink(missing_ok=True)
            else:
                self._replace(before)
            raise

    def _parsed(
        self,
    ) -> tuple[model_server_config_pb2.ModelServerConfig, model_server_config_pb2.ModelConfig]:
        """Return the file's content and, in it, the entry of the model, which may be new."""
        config = model_server_config_pb2.ModelServerConfig()
        try:
            with contextlib.suppress(FileNotFoundError):
                text_format.Parse(self.path.read_text(encoding="utf-8"), config)
        except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
            raise ReleaseError(f"{self.path} cannot be read as a model config: {error}") from error
        models = config.model_config_list.config
        if not any(model.name == self.model_name for model in models):
            models.add(name=self.model_name, base_path=self.base_path, model_platform=_PLATFORM)
        return config, next(model for model in models if model.name == self.model_name)

    def _replace(self, text: str) -> None:
        try:
            write_text(self.path, text)
        except OSError as error:
            raise ReleaseError(f"{self.path} cannot be written: {error.strerror}") from error


def _serialized(config: model_server_config_pb2.ModelServerConfig) -> bytes:
    content: bytes = config.SerializeToString(deterministic=True)
    return content
