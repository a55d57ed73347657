"""Names of the public datasets, and functions to read their archives.

All commands import this module, so it imports polars, which is slow, only when a file is read.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ArchiveError

if TYPE_CHECKING:
    import polars as pl


class Dataset(str, Enum):
    """Datasets that `two-tower data` can prepare; values are names on the command line."""

    ML_100K = "movielens-100k"
    ML_1M = "movielens-1m"
    ML_LATEST = "movielens-latest"
    RETAILROCKET = "retailrocket"

    @property
    def folder_name(self) -> str:
        """Name of the dataset's folder in `data`."""
        return self.value.replace("-", "_")


@dataclass(frozen=True)
class Tables:
    """The tables of a dataset in memory.

    Attributes:
        files: Tables by file name, such as `interactions.csv`.
        counts: Number of interactions, movies and so on, by name.
        source: Path, URL or package that the tables were read from.
    """

    files: "Mapping[str, pl.DataFrame]"
    counts: Mapping[str, int]
    source: str


def show_counts(counts: Mapping[str, int]) -> str:
    """Format counts as text, such as "1,682 movies, 943 users"."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


class ArchiveMembers:
    """The files in a zip archive or in the folder that it was unpacked into.

    Files are identified by the end of their path, because the top folder of an archive
    ("ml-1m/ratings.dat") may be missing after unpacking or repacking.

    Args:
        source: Path of a zip file or folder, or the bytes of a zip file.
        name: Name of the source for messages.

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
        """Return the bytes of the file whose path ends with `member`; the shortest path wins.

        Raises:
            ArchiveError: The file is missing or damaged.
        """
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

    Args:
        content: The bytes of the file.
        where: Name of the file for messages.
        schema: Types of the columns, in order.
        **options: Options of `polars.read_csv`.

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
    incomplete = table.with_row_index("row").filter(
        pl.any_horizontal(cs.numeric().exclude("row").is_null())
    )
    if len(incomplete):
        raise ArchiveError(
            f"{where}: each line must have {', '.join(schema)}; a number is missing in "
            f"{len(incomplete)} lines, the first is {incomplete.drop('row').row(0)}"
        )
    return table
