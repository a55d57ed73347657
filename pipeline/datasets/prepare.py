"""Conversion of a public dataset to a folder of CSV files."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.dataset import Dataset
from pipeline.errors import DestinationError

# Written last. A folder is complete if all files in its manifest have the recorded sizes.
MANIFEST = "dataset.json"


@dataclass(frozen=True)
class Prepared:
    """The result of preparing a dataset.

    Attributes:
        folder: Folder with the CSV files.
        counts: Counts of `Tables`, or None if the folder was already complete.
    """

    folder: Path
    counts: Mapping[str, int] | None


def prepare(
    dataset: Dataset, data_dir: Path, *, archives: Sequence[Path] = (), force: bool = False
) -> Prepared:
    """Write the tables of a dataset as CSV files, unless its folder is already complete.

    Args:
        dataset: The dataset to prepare.
        data_dir: Parent of the dataset's folder.
        archives: The zip file, or the folder that it was unpacked into; for RetailRocket, also its
            two files. If empty, MovieLens 100K is downloaded.
        force: Whether to replace a folder that is already complete.

    Raises:
        DownloadError: No source can be reached.
        ArchiveError: The archive is missing, incomplete or the wrong one.
        DestinationError: The folder cannot be written.
    """
    folder = data_dir / dataset.folder_name
    if is_complete(folder) and not force:
        return Prepared(folder, None)
    if dataset is Dataset.RETAILROCKET:
        from pipeline.datasets import retailrocket

        tables = retailrocket.read(archives)
    else:
        from pipeline.datasets import movielens

        tables = movielens.read(dataset, archives)
    with atomic_folder(folder) as partial:
        for name, table in tables.files.items():
            table.write_csv(partial / name)
        manifest = {
            "name": dataset.value,
            "source": tables.source,
            "counts": dict(tables.counts),
            "bytes": {name: (partial / name).stat().st_size for name in tables.files},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return Prepared(folder, tables.counts)


def is_complete(folder: Path) -> bool:
    """Return whether all files in the manifest of a folder exist with the recorded sizes."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes: dict[str, int] = manifest["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


@contextmanager
def atomic_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `destination` if the block succeeds.

    If the block raises or the process is killed, `destination` does not change. The next call
    removes temporary folders of a killed process.

    Raises:
        DestinationError: The folder cannot be written, or another process is preparing a dataset.
    """
    partial = destination.with_name(f".{destination.name}.partial")
    old = destination.with_name(f".{destination.name}.old")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(destination.parent):
            for leftover in (partial, old):
                shutil.rmtree(leftover, ignore_errors=True)
            try:
                partial.mkdir()
                yield partial
                if destination.exists():  # `rename` cannot replace a non-empty folder.
                    destination.rename(old)
                try:
                    partial.rename(destination)
                except OSError:
                    if old.exists():
                        old.rename(destination)
                    raise
            finally:
                for leftover in (partial, old):
                    shutil.rmtree(leftover, ignore_errors=True)
    except BlockingIOError as error:
        raise DestinationError(
            f"another process is preparing a dataset in {destination.parent}; wait for it"
        ) from error
    except OSError as error:
        raise DestinationError(
            f"{destination} cannot be written: {error}. Check the free disk space and the "
            "permissions, or give another folder with --data-dir"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder; raise BlockingIOError if another process holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
