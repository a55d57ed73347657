"""Prepare a public dataset as a folder of CSV files.

The command line imports this module for the names of the datasets, so polars is only imported when
a dataset is read.
"""

import fcntl
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ArchiveError, DestinationError

if TYPE_CHECKING:
    import polars as pl

# Written last. A folder is complete if it has every file of its manifest, in the right size.
MANIFEST = "dataset.json"


class Dataset(str, Enum):
    """The datasets that can be prepared; the value is the name on the command line."""

    ML_100K = "movielens-100k"
    ML_1M = "movielens-1m"
    ML_LATEST = "movielens-latest"
    RETAILROCKET = "retailrocket"

    @property
    def folder_name(self) -> str:
        """Name of the dataset's folder, which its configuration reads."""
        return self.value.replace("-", "_")


@dataclass(frozen=True)
class Tables:
    """A dataset in memory.

    Attributes:
        files: Tables by the name of the CSV file.
        counts: Number of interactions, items and so on, to be shown and checked.
        source: The origin of the tables, as text.
    """

    files: "Mapping[str, pl.DataFrame]"
    counts: Mapping[str, int]
    source: str


@dataclass(frozen=True)
class Prepared:
    """The result of preparing a dataset.

    Attributes:
        folder: Folder with the CSV files.
        counts: See `Tables`; None if the folder was already complete.
    """

    folder: Path
    counts: Mapping[str, int] | None


def prepare(
    dataset: Dataset, data_dir: Path, *, archives: Sequence[Path] = (), force: bool = False
) -> Prepared:
    """Write a dataset's tables as CSV files.

    Args:
        dataset: The dataset to prepare.
        data_dir: Folder with one folder for each dataset.
        archives: Zip file, or the folder it was unpacked into. RetailRocket's two files may be
            given one by one. Only MovieLens 100K can be downloaded instead.
        force: Whether to write a complete folder again.

    Raises:
        DownloadError: No source can be reached.
        ArchiveError: The archive is missing, incomplete or another one.
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
    """Return whether a folder has every file of its manifest, in the right size."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes: dict[str, int] = manifest["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def show_counts(counts: Mapping[str, int]) -> str:
    """Return counts as text, such as "1,682 movies, 943 users"."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


@contextmanager
def atomic_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `destination` if the block succeeds.

    If the block raises or the process is killed, `destination` stays as it was; the next call
    removes what a killed process left behind.

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
                if destination.exists():  # A folder cannot be renamed onto one that has files.
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
    """Hold a lock on a folder; raise BlockingIOError if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class ArchiveMembers:
    """The files of a zip archive or of the folder it was unpacked into.

    Files are found by the end of their path: an archive of GroupLens has one folder
    ("ml-1m/ratings.dat"), which people keep or drop when they unpack or repack it.

    Args:
        source: A zip file, a folder, or the bytes of a zip file.
        name: Name of the source in messages.

    Raises:
        ArchiveError: The source does not exist, or is neither a zip archive nor a folder.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self.name = name
        self._root: Path | zipfile.Path
        self._paths: list[str]
        if isinstance(source, Path) and not source.exists():
            raise ArchiveError(f"{name} must be a zip archive or a folder, but it does not exist")
        if isinstance(source, Path) and source.is_dir():
            files = (path for path in source.rglob("*") if path.is_file())
            self._root, self._paths = source, [str(path.relative_to(source)) for path in files]
            return
        try:
            archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        except (zipfile.BadZipFile, OSError) as error:
            raise ArchiveError(
                f"{name} must be a complete zip archive or a folder, got: {error}. Download it "
                "again"
            ) from error
        self._root, self._paths = zipfile.Path(archive), archive.namelist()

    def has(self, member: str) -> bool:
        """Return whether a file's path ends with `member`."""
        return bool(self._find(member))

    def read(self, member: str) -> bytes:
        """Return the bytes of a file, or raise ArchiveError."""
        found = self._find(member)
        if not found:
            known = sorted(path for path in self._paths if not path.endswith("/"))
            more = f" and {len(known) - 5} more" if len(known) > 5 else ""
            raise ArchiveError(
                f"{self.name} must contain `{member}`, but has {known[:5]}{more}. Is it the right "
                "archive?"
            )
        try:
            return (self._root / min(found, key=len)).read_bytes()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise ArchiveError(
                f"{self.name}: `{member}` cannot be read: {error}. Download the archive again"
            ) from error

    def _find(self, member: str) -> list[str]:
        return [path for path in self._paths if f"/{path}".endswith(f"/{member}")]


def check_columns(content: bytes, separator: str, columns: Sequence[str], where: str) -> None:
    """Raise ArchiveError unless the header of CSV content has exactly these columns."""
    header = content.partition(b"\n")[0].decode("utf-8", "replace").strip().split(separator)
    if header != list(columns):
        raise ArchiveError(
            f"{where} must have the columns {', '.join(columns)}, got {', '.join(header)[:100]}"
        )


def read_csv(
    content: bytes, *, where: str, schema: "Mapping[str, type[pl.DataType]]", **options: Any
) -> "pl.DataFrame":
    """Read CSV content in which no number may be missing; an empty text is null.

    `schema` has the columns in order, `where` names the file in messages, and the options are those
    of `polars.read_csv`.

    Raises:
        ArchiveError: A row has the wrong number of fields, or a field has the wrong type.
    """
    import polars as pl
    import polars.selectors as cs

    try:
        table = pl.read_csv(content, schema=dict(schema), **options)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ArchiveError(
            f"{where}: each line must have {', '.join(schema)}, got: {reason}"
        ) from error
    # polars fills the missing fields of a short line with nulls.
    incomplete = table.with_row_index("row").filter(
        pl.any_horizontal(cs.numeric().exclude("row").is_null())
    )
    if len(incomplete):
        raise ArchiveError(
            f"{where}: each line must have {', '.join(schema)}; a number is missing in "
            f"{len(incomplete)} lines, the first is {incomplete.drop('row').row(0)}"
        )
    return table
