"""The spans that were let pass, in which version and with which files: a ledger in each profile.

Every run that is let pass leaves a folder with the profiles that it took and the ledger as it is
then: the newest folder tells which deliveries need not be compared again, and where the profile of
each lies.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.drift_gate.span_profile import Profile
from components.interactions.config import IngestConfig
from components.interactions.spans.listing import ListedFile, list_files
from components.interactions.spans.pattern import SpanFiles

_FILE = "let_pass.json"


@dataclass(frozen=True)
class Delivery:
    """One span as it was delivered.

    Attributes:
        span: Its number.
        version: Which delivery; None where they are not told apart.
        files: Hash of the names, sizes and times of its files.
    """

    span: int
    version: int | None
    files: str


@dataclass(frozen=True)
class LetPass:
    """A delivery that later runs need not compare again.

    Attributes:
        delivery: Which.
        snapshots: Hash of the files of catalogue and queries that were compared with it; empty
            where it was not the newest span of its run.
        profile: Folder of its profile; empty where it was taken as it was.
    """

    delivery: Delivery
    snapshots: str = ""
    profile: str = ""


def delivered(config: IngestConfig) -> tuple[list[Delivery], str]:
    """Returns the window of a run, oldest first, and the hash of its snapshots' files.

    Args:
        config: With chosen spans that include interactions.
    """
    chosen = config.chosen_spans
    if chosen is None or not chosen.interactions:
        raise ValueError("drift needs chosen spans of interactions")
    listed = {file.path: file for file in list_files(config.data.interactions)}
    window = [
        Delivery(span.span, span.version, _digest(_files_of(span, listed)))
        for span in chosen.interactions
    ]
    snapshots: list[ListedFile] = []
    for pattern, span in (
        (config.data.candidates, chosen.candidates),
        (config.data.queries, chosen.queries),
    ):
        if pattern is not None:
            found = list_files(pattern)
            snapshots += (
                found if span is None else _files_of(span, {file.path: file for file in found})
            )
    return window, _digest(snapshots)


def write_let_pass(
    folder: str,
    earlier: Sequence[LetPass],
    passed: Sequence[tuple[LetPass, Profile | None]],
) -> None:
    """Writes the profiles of a run that was let pass, and last the ledger: see `is_whole`.

    Args:
        folder: Of this run.
        earlier: The ledger until now.
        passed: What is new in it, the newest span last.
    """
    entries = {entry.delivery: entry for entry in earlier}
    for entry, profile in passed:
        entries.pop(entry.delivery, None)
        place = ""
        if profile is not None:
            version = entry.delivery.version
            name = str(entry.delivery.span) + ("" if version is None else f"-v{version}")
            place = os.path.join(folder, name)
            fileio.makedirs(place)
            profile.write(place)
        entries[entry.delivery] = replace(entry, profile=place)
    text = json.dumps([asdict(entry) for entry in entries.values()])
    io_utils.write_string_file(os.path.join(folder, _FILE), text)


def read_let_pass(folder: str) -> list[LetPass]:
    """Reads a ledger, in the order in which its spans were let pass."""
    content = json.loads(io_utils.read_string_file(os.path.join(folder, _FILE)))
    return [LetPass(**{**entry, "delivery": Delivery(**entry["delivery"])}) for entry in content]


def is_whole(folder: str) -> bool:
    """Whether a ledger was written there, after its profiles."""
    return bool(fileio.exists(os.path.join(folder, _FILE)))


def _files_of(span: SpanFiles, listed: Mapping[str, ListedFile]) -> list[ListedFile]:
    return [listed.get(file.path, ListedFile(file.path, file.size_bytes, 0)) for file in span.files]


def _digest(files: Sequence[ListedFile]) -> str:
    # Where they lie does not count: data that is moved with its times is the same.
    told = sorted(
        [os.path.basename(file.path), file.size_bytes, file.modified_ns] for file in files
    )
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
