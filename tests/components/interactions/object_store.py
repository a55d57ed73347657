"""A filesystem of Beam's that lives in memory and has no folders, as object stores have none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, ClassVar

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

# A remote stream returns less than it is asked for.
_MOST_BYTES = 4096


class ObjectStore(FileSystem):  # type: ignore[misc]  # Beam's types are not declared
    """Beam finds it by its scheme, once this module is imported."""

    objects: ClassVar[dict[str, bytes]] = {}
    updated_s: ClassVar[float] = 0.0  # of every object; 0 if the store does not have times

    @classmethod
    def scheme(cls) -> str:
        return "obj"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        folder, _, name = path.rpartition("/")
        return folder, name

    def mkdirs(self, path: str) -> None:
        """Do nothing: an object store has no folders."""

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path, content in sorted(self.objects.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(content), self.updated_s)

    def create(
        self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO
    ) -> io.BytesIO:
        return _Upload(path)

    def open(
        self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO
    ) -> io.BufferedReader:
        if path not in self.objects:
            raise BeamIOError(f"there is no {path}")
        return io.BufferedReader(_Download(self.objects[path]))

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        raise NotImplementedError  # Ingestion copies nothing.

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self.objects[target] = self.objects.pop(source)

    def exists(self, path: str) -> bool:
        return any(name == path or name.startswith(f"{path}/") for name in self.objects)

    def size(self, path: str) -> int:
        return len(self.objects[path])

    def last_updated(self, path: str) -> float:
        return self.updated_s

    def checksum(self, path: str) -> str:
        return ""

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, self.size(path), self.updated_s)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            self.objects.pop(path, None)


class _Upload(io.BytesIO):
    """An object is there once it is whole."""

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            ObjectStore.objects[self._path] = self.getvalue()
        super().close()


class _Download(io.BytesIO):
    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:_MOST_BYTES])
