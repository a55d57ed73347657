"""The public datasets: reading of their archives, and conversion to a folder of CSV files.

All commands import this module, so it imports polars, which is slow, only when a file is read.
"""

import fcntl
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components import files
from pipeline.errors import ArchiveError, DestinationError

if TYPE_CHECKING:
    import polars as pl

# Written last. A folder is complete if all files in its manifest have the recorded sizes.
MANIFEST = "dataset.json"


class Dataset(str, Enum):
    """Datasets that `two-tower data` can prepare; values are names on the command line."""

    ML_100K = "movielens-100k"
    ML_1M = "movielens-1m"
    ML_LATEST = "movielens-latest"
    RETAILROCKET = "retailrocket"


class Tables(NamedTuple):
    """The tables of a dataset by file name, and the counts of interactions, movies and so on.

    `source` is the path, URL or package that they were read from.
    """

    files: "Mapping[str, pl.DataFrame]"
    counts: Mapping[str, int]
    source: str


class Prepared(NamedTuple):
    """A folder with CSV files, and the counts of its tables, or None if it was complete before."""

    folder: Path
    counts: Mapping[str, int] | None


def prepare(
    dataset: Dataset, data_dir: Path, read: Callable[[], Tables], *, force: bool = False
) -> Prepared:
    """Write the tables of a dataset as CSV files, unless its folder is already complete.

    `data_dir` is the parent of the folder. `force` replaces a complete folder.

    Raises:
        DatasetError: The tables cannot be read, or the folder cannot be written.
    """
    folder = data_dir / dataset.value.replace("-", "_")
    if _is_complete(folder) and not force:
        return Prepared(folder, None)
    tables = read()
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


@contextmanager
def atomic_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `destination` if the block succeeds.

    If the block raises or the process is killed, `destination` does not change.

    Raises:
        DestinationError: The folder cannot be written, or another process is preparing a dataset.
    """
    try:
        with ExitStack() as cleanup:
            destination.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(destination.parent, os.O_RDONLY)
            cleanup.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(cleanup.enter_context(files.open_folder_to_write(destination)))
    except BlockingIOError as error:
        raise DestinationError(
            f"another process is preparing a dataset in {destination.parent}; wait for it"
        ) from error
    except OSError as error:
        raise DestinationError(
            f"{destination} cannot be written: {error}. Check the free disk space and the "
            "permissions, or give another folder with --data-dir"
        ) from error


def _is_complete(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes: dict[str, int] = manifest["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def show_counts(counts: Mapping[str, int]) -> str:
    """Format counts as text, such as "1,682 movies, 943 users"."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


class ArchiveMembers:
    """The files in a zip archive or in the folder that it was unpacked into.

    Files are identified by the end of their path, because the top folder of an archive
    ("ml-1m/ratings.dat") may be missing after unpacking or repacking. `name` is for messages.

    Raises:
        ArchiveError: The source does not exist, or is neither a zip archive nor a folder.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self.name = name
        self._root: Path | zipfile.Path
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
        return any(f"/{path}".endswith(f"/{member}") for path in self._paths)

    def read(self, member: str) -> bytes:
        """Return the bytes of the file whose path ends with `member`; the shortest path wins.

        Raises:
            ArchiveError: The file is missing or damaged.
        """
        if not self.has(member):
            known = sorted(path for path in self._paths if not path.endswith("/"))
            more = f" and {len(known) - 5} more" if len(known) > 5 else ""
            raise ArchiveError(
                f"{self.name} must contain `{member}`, but has {known[:5]}{more}. Is it the right "
                "archive?"
            )
        found = (path for path in self._paths if f"/{path}".endswith(f"/{member}"))
        try:
            return (self._root / min(found, key=len)).read_bytes()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise ArchiveError(
                f"{self.name}: `{member}` cannot be read: {error}. Download the archive again"
            ) from error


def check_columns(content: bytes, separator: str, columns: Sequence[str], where: str) -> None:
    """Raise ArchiveError unless the header of CSV content equals `columns`."""
    header = content.partition(b"\n")[0].decode("utf-8", "replace").strip().split(separator)
    if header != list(columns):
        raise ArchiveError(
            f"{where} must have the columns {', '.join(columns)}, got {', '.join(header)[:100]}"
        )


def read_csv(
    content: bytes, *, where: str, schema: "Mapping[str, type[pl.DataType]]", **options: Any
) -> "pl.DataFrame":
    """Parse CSV content, in which numeric fields must not be empty; empty strings become null.

    `where` is the name of the file for messages, `schema` the types of the columns in order, and
    `options` are those of `polars.read_csv`.

    Raises:
        ArchiveError: A line has the wrong number of fields, or a field has the wrong type.
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
    # polars fills missing fields at the end of a line with nulls.
    incomplete = table.filter(pl.any_horizontal(cs.numeric().is_null()))
    if len(incomplete):
        raise ArchiveError(
            f"{where}: each line must have {', '.join(schema)}; a number is missing in "
            f"{len(incomplete)} lines, the first is {incomplete.row(0)}"
        )
    return table
