"""List the files that match a pattern; local files are listed without loading Beam."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.files import is_remote
from components.interactions.errors import NoInputError
from components.interactions.spans.pattern import SpanPattern, is_fixed, near_regex


@dataclass(frozen=True, order=True)
class ListedFile:
    """A file; `modified_ns` is nanoseconds since 1970, or 0 if the filesystem does not have it."""

    path: str
    size_bytes: int
    modified_ns: int


def list_files(pattern: str) -> list[ListedFile]:
    """Return the files that match a pattern, in name order.

    Raises:
        NoInputError: A folder cannot be listed, or a file disappears while it is listed.
    """
    return list_files_and_near_misses(pattern)[0]


def list_files_and_near_misses(pattern: str) -> tuple[list[ListedFile], list[str]]:
    """Return the files that match a pattern, and paths that almost do, both in name order.

    A path almost matches if each placeholder corresponds to any text with a digit, such as `day-12`
    for `day-{SPAN:4}`.

    Raises:
        NoInputError: A folder cannot be listed, or a file disappears while it is listed.
    """
    parsed = SpanPattern.parse(pattern)
    if is_remote(pattern):
        found = _remote(parsed.glob)
    else:
        first, *rest = pattern.split("/")
        found = _local(first or "/", rest) if rest else _local("", [first])
    regex, near = parsed.regex, parsed.near_regex
    files, near_misses = [], []
    for file in found:
        if regex.fullmatch(file.path):
            files.append(file)
        elif near.fullmatch(file.path):
            near_misses.append(file.path)
    return sorted(files), sorted(near_misses)


def _local(folder: str, segments: Sequence[str]) -> Iterator[ListedFile]:
    segment, *rest = segments
    if "**" in segment:
        for parent, _, names in os.walk(folder):
            yield from (_stat(os.path.join(parent, name)) for name in names)
        return
    if is_fixed(segment):
        names = [segment]
    else:
        regex = near_regex(segment)
        try:
            names = [name for name in os.listdir(folder or ".") if regex.fullmatch(name)]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise NoInputError(f"{folder} cannot be listed: {error}") from error
    for name in names:
        path = os.path.join(folder, name)
        if rest:
            yield from _local(path, rest)
        elif os.path.isfile(path):
            yield _stat(path)


def _stat(path: str) -> ListedFile:
    try:
        state = os.stat(path)
    except OSError as error:
        raise NoInputError(f"{path} disappeared after it was listed: {error}") from error
    return ListedFile(path, state.st_size, state.st_mtime_ns)


def _remote(glob: str) -> Iterator[ListedFile]:
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    try:
        (matched,) = FileSystems.match([glob])
    except (BeamIOError, ValueError) as error:
        raise NoInputError(f"{glob} cannot be listed: {error}") from error
    for entry in matched.metadata_list:
        modified = int((entry.last_updated_in_seconds or 0) * 10**9)
        yield ListedFile(entry.path, entry.size_in_bytes, modified)
