"""Record the accepted spans: their versions, the hashes of their files, and their profiles.

Each accepted run writes a folder with its new profiles and the list of all accepted spans, so the
next run only reads the newest folder. The folders are artifacts in ML Metadata. On a cluster, where
components cannot read ML Metadata, they are in a profile store below the pipeline root, and their
names consist of the newest span and the time.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from components import files
from components.drift_gate.span_profile import Profile
from components.interactions.config import IngestConfig
from components.interactions.spans.pattern import ChosenSpans, ListedFile, SpanFiles, list_files

_FILE = "accepted_spans.json"


@dataclass(frozen=True)
class Delivery:
    """A delivery of a span; `files` is a hash of the names, sizes and times of its files."""

    span: int
    version: int | None
    files: str


@dataclass(frozen=True)
class AcceptedSpan:
    """An accepted delivery, which later runs do not compare again.

    Attributes:
        delivery: The delivery.
        snapshots: Hash of the catalogue and query files of the run that accepted it; empty if it
            was not the newest span of that run.
        profile: Folder of its profile; empty if it was accepted without a profile.
    """

    delivery: Delivery
    snapshots: str = ""
    profile: str = ""


def deliveries(config: IngestConfig, chosen: ChosenSpans) -> tuple[list[Delivery], str]:
    """Return the deliveries in a run's window, oldest first, and a hash of its snapshot files."""
    listed = _listed(config.data.interactions)
    window = [
        Delivery(span.span, span.version, _hash_files(_files_of(span, listed)))
        for span in chosen.interactions
    ]
    snapshots: list[ListedFile] = []
    for pattern, span in (
        (config.data.candidates, chosen.candidates),
        (config.data.queries, chosen.queries),
    ):
        if pattern is not None:
            found = _listed(pattern)
            snapshots += found.values() if span is None else _files_of(span, found)
    return window, _hash_files(snapshots)


def write_accepted(
    folder: str,
    earlier: Sequence[AcceptedSpan],
    accepted: Sequence[tuple[AcceptedSpan, Profile | None]],
) -> None:
    """Write the profiles of the accepted spans, oldest first, and then the list of all of them."""
    entries = {entry.delivery: entry for entry in earlier}
    for entry, profile in accepted:
        entries.pop(entry.delivery, None)
        path = ""
        if profile is not None:
            version = entry.delivery.version
            name = str(entry.delivery.span) + ("" if version is None else f"-v{version}")
            path = os.path.join(folder, name)
            profile.write(path)
        entries[entry.delivery] = replace(entry, profile=path)
    text = json.dumps([asdict(entry) for entry in entries.values()])
    files.write_text(os.path.join(folder, _FILE), text)


def read_accepted(folder: str) -> list[AcceptedSpan]:
    """Return the accepted spans listed in a folder, in the order of acceptance."""
    return [
        AcceptedSpan(Delivery(**entry["delivery"]), entry["snapshots"], entry["profile"])
        for entry in json.loads(files.read_text(os.path.join(folder, _FILE)))
    ]


def is_whole(folder: str) -> bool:
    """Return whether a folder is complete: the list of accepted spans is written last."""
    return files.exists(os.path.join(folder, _FILE))


def new_folder(store: str, span: int) -> str:
    """Create a folder for a run in a profile store, and return its path."""
    return files.make_folder(os.path.join(store, f"{span}-{time.time_ns()}"))


def newest_folder(store: str) -> str:
    """Return the newest complete folder in a profile store, or "" if there is none."""
    found = []
    for name in files.list_folder(store):
        span, _, moment = name.partition("-")
        if span.isdecimal() and moment.isdecimal():
            found.append((int(moment), os.path.join(store, name)))
    return next((folder for _, folder in sorted(found, reverse=True) if is_whole(folder)), "")


def _listed(pattern: str) -> dict[str, ListedFile]:
    return {file.path: file for file in list_files(pattern)}


def _files_of(span: SpanFiles, listed: Mapping[str, ListedFile]) -> list[ListedFile]:
    return [listed.get(file.path, ListedFile(file.path, file.size_bytes, 0)) for file in span.files]


def _hash_files(listed: Sequence[ListedFile]) -> str:
    # Folders are not hashed, so files that were moved with their times count as unchanged.
    content = sorted(
        [os.path.basename(file.path), file.size_bytes, file.modified_ns] for file in listed
    )
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
