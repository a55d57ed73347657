"""Lists the files that a pattern names, on this machine without loading Beam."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.interactions.errors import NoInputError
from components.interactions.spans.pattern import SpanPattern, is_fixed, segment_regex


@dataclass(frozen=True, order=True)
class ListedFile:
    """A file and what tells that it has changed.

    Attributes:
        path: Where it is.
        size_bytes: As stored.
        modified_ns: When it was written, since 1970; 0 where the filesystem does not say.
    """

    path: str
    size_bytes: int
    modified_ns: int


def list_files(pattern: str) -> list[ListedFile]:
    """Returns the files of a pattern in name order; none where there is none.

    Placeholders stand for any digits.

    Raises:
        NoInputError: The place cannot be listed, or a file is gone before it is looked at.
    """
    return list_files_and_others(pattern)[0]


def list_files_and_others(pattern: str) -> tuple[list[ListedFile], list[str]]:
    """Returns the files of a pattern, and what is named nearly so, both in name order.

    Nearly so: there are digits where the placeholders stand, but not as the pattern has them, as in
    `day-12` for `day-{SPAN:4}`.

    Raises:
        NoInputError: The place cannot be listed.
    """
    parsed = SpanPattern.parse(pattern)
    if "://" in pattern:
        found = _remote(parsed.glob)
    else:
        first, *rest = pattern.split("/")
        found = _local(first or "/", rest) if rest else _local(".", [first])
    regex, near_regex = parsed.regex, parsed.near_regex
    files, others = [], []
    for file in found:
        if regex.fullmatch(file.path):
            files.append(file)
        elif near_regex.fullmatch(file.path):
            others.append(file.path)
    return sorted(files), sorted(others)


def _local(folder: str, segments: Sequence[str]) -> Iterator[ListedFile]:
    segment, *rest = segments
    if "**" in segment:
        for place, _, names in os.walk(folder):
            yield from (_stated(os.path.join(place, name)) for name in names)
        return
    if is_fixed(segment):
        names = [segment]
    else:
        regex = segment_regex(segment)
        try:
            names = [name for name in os.listdir(folder) if regex.fullmatch(name)]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise NoInputError(f"{folder} cannot be listed: {error}") from error
    for name in names:
        path = os.path.join(folder, name)
        if rest:
            yield from _local(path, rest)
        elif os.path.isfile(path):
            yield _stated(path)


def _stated(path: str) -> ListedFile:
    try:
        state = os.stat(path)
    except OSError as error:
        raise NoInputError(f"{path} was listed, and cannot be looked at: {error}") from error
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
