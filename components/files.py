"""Functions for files and folders, on this machine and on object stores.

Python's standard library handles paths. Beam's file systems handle URIs, such as
`gs://bucket/folder`. An object store has no folders, so a folder exists there while it has objects.

Code that reads files with TensorFlow uses `tf.io.gfile` instead.
"""

import contextlib
import glob as local_glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, TypeAlias

_BLOCK_BYTES = 1 << 22

Path: TypeAlias = str | os.PathLike[str]


def is_remote(path: Path) -> bool:
    """Return whether a path is a URI."""
    return "://" in os.fspath(path)


def open_to_read(path: Path) -> IO[bytes]:
    """Open a file for reading, without decompressing it."""
    if not is_remote(path):
        return open(path, "rb")
    stream: IO[bytes] = _beam().open(os.fspath(path), compression_type="uncompressed")
    return stream


def read_bytes(path: Path) -> bytes:
    """Return the content of a file."""
    with open_to_read(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the content of a file as UTF-8."""
    return read_bytes(path).decode()


@contextlib.contextmanager
def open_to_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing, which only appears when the block ends without an error.

    Its folder is created, and an existing file is replaced.
    """
    if is_remote(path):
        # An object appears when it is closed, even after an error, so collect the content first.
        with tempfile.TemporaryFile() as content:
            yield content
            content.seek(0)
            with _beam().create(os.fspath(path), compression_type="uncompressed") as stream:
                shutil.copyfileobj(content, stream)
        return
    folder, name = os.path.split(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    partial = os.path.join(folder, f".{name}.{os.getpid()}.incoming")
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


@contextlib.contextmanager
def open_folder_to_write(folder: Path) -> Iterator[str]:
    """Yield an empty folder, which becomes `folder` when the block ends without an error.

    An existing folder is replaced. The next call repairs what a killed process left.
    """
    target = os.fspath(folder).rstrip("/")
    parent, name = os.path.split(target)
    incoming, replaced = (
        os.path.join(parent, f".{name}.{end}") for end in ("incoming", "replaced")
    )
    if exists(replaced) and not exists(target):
        os.rename(replaced, target)
    remove(incoming)
    try:
        yield make_folder(incoming)
        if is_remote(target):
            remove(target)
            copy_folder(incoming, target)
            return
        remove(replaced)
        if exists(target):  # `rename` cannot replace a folder that is not empty.
            os.rename(target, replaced)
        os.rename(incoming, target)
        remove(replaced)
    finally:
        remove(incoming)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole (see `open_to_write`)."""
    with open_to_write(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a file as UTF-8 and as a whole (see `open_to_write`)."""
    write_bytes(path, text.encode())


def exists(path: Path) -> bool:
    """Return whether a file or folder exists."""
    if not is_remote(path):
        return os.path.exists(path)
    uri = os.fspath(path).rstrip("/")
    return bool(_beam().exists(uri) or _matches(f"{uri}/**", limit=1))


def list_folder(folder: Path) -> list[str]:
    """Return the sorted names in a folder, or an empty list if it does not exist."""
    if is_remote(folder):
        uri = os.fspath(folder).rstrip("/")
        return sorted({path[len(uri) + 1 :].partition("/")[0] for path in walk(folder)})
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def glob(pattern: str) -> list[str]:
    """Return the sorted paths of the files that match a pattern with `*`."""
    if is_remote(pattern):
        return sorted(_matches(pattern))
    return sorted(path for path in local_glob.glob(pattern) if os.path.isfile(path))


def walk(folder: Path) -> list[str]:
    """Return the sorted paths of all files below a folder."""
    root = os.fspath(folder).rstrip("/")
    if is_remote(folder):
        return sorted(_matches(f"{root}/**"))
    return sorted(os.path.join(at, name) for at, _, names in os.walk(root) for name in names)


def make_folder(folder: Path) -> str:
    """Create a folder unless it exists; return its path."""
    path = os.fspath(folder)
    if not is_remote(path):
        os.makedirs(path, exist_ok=True)
    elif not exists(path):
        _beam().mkdirs(path)
    return path


def remove(path: Path) -> None:
    """Remove a file, or a folder and everything in it, if it exists."""
    if is_remote(path):
        uri = os.fspath(path).rstrip("/")
        if found := walk(uri):
            _beam().delete(found)
        if _beam().exists(uri):
            _beam().delete([uri])
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def rename(sources: Sequence[str], targets: Sequence[str]) -> None:
    """Rename files within a file system. On an object store, this takes as long as a copy."""
    if sources and is_remote(sources[0]):
        _beam().rename(list(sources), list(targets))
        return
    for source, target in zip(sources, targets, strict=True):
        os.replace(source, target)


def copy(source: Path, target: Path) -> None:
    """Copy a file, if necessary from one file system to another."""
    with open_to_read(source) as read, open_to_write(target) as written:
        shutil.copyfileobj(read, written)


def copy_folder(source: Path, target: Path, last: str = "") -> None:
    """Copy all files below a folder, and the file `last`, if given, after all others.

    Raises:
        FileNotFoundError: `last` does not exist in the folder.
    """
    root = os.fspath(source).rstrip("/")
    names = [path[len(root) + 1 :] for path in walk(root)]
    if last and last not in names:
        raise FileNotFoundError(f"there is no {last} in {root}")
    for name in sorted(names, key=lambda name: name == last):
        copy(os.path.join(root, name), os.path.join(target, name))


def digest_of_folder(folder: Path) -> str:
    """Return a hash of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    root = os.fspath(folder).rstrip("/")
    for path in walk(root):
        digest.update(path[len(root) + 1 :].encode() + b"\0")
        with open_to_read(path) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _matches(pattern: str, limit: int | None = None) -> list[str]:
    (found,) = _beam().match([pattern], None if limit is None else [limit])
    return [entry.path for entry in found.metadata_list]


def _beam() -> Any:
    from apache_beam.io.filesystems import FileSystems  # imported only if there is a URI

    return FileSystems
