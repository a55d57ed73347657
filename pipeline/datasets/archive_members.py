"""Read members by name from a zip archive or from the folder it was unpacked into."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from pipeline.datasets.errors import ArchiveError


class ArchiveMembers:
    """The files of a zip archive or an unpacked folder, found by the end of their path.

    An archive of GroupLens holds one folder ("ml-1m/ratings.dat"); someone may have packed or
    unpacked it with or without that folder, so a member is found by its last part.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        """Open the source.

        Args:
            source: a zip file, a folder, or the bytes of a zip file.
            name: what to call it in messages.

        Raises:
            ArchiveError: there is no such file, or it is neither a zip archive nor a folder.
        """
        self.name = name
        self._root: Path | zipfile.Path
        self._paths: list[str]
        if isinstance(source, Path) and not source.exists():
            raise ArchiveError(f"{name} must be a zip archive or a folder, and it does not exist")
        if isinstance(source, Path) and source.is_dir():
            files = (path for path in source.rglob("*") if path.is_file())
            self._root, self._paths = source, [str(path.relative_to(source)) for path in files]
            return
        try:
            archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        except (zipfile.BadZipFile, OSError) as error:
            raise ArchiveError(
                f"{name} must be a whole zip archive or a folder, got: {error}. Download it again."
            ) from error
        self._root, self._paths = zipfile.Path(archive), archive.namelist()

    def holds(self, member: str) -> bool:
        """Say whether a member's path ends so."""
        return bool(self._find(member))

    def read(self, member: str) -> bytes:
        """Return a member's bytes.

        Args:
            member: the end of its path, such as "ratings.dat".

        Raises:
            ArchiveError: the archive does not hold it, or it cannot be read whole.
        """
        found = self._find(member)
        if not found:
            have = sorted(path for path in self._paths if not path.endswith("/"))
            raise ArchiveError(
                f"{self.name} must hold `{member}`, it holds {have[:5]}"
                f"{f' and {len(have) - 5} more' if len(have) > 5 else ''}. Is it this release?"
            )
        path = min(found, key=len)
        try:
            return (self._root / path).read_bytes()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise ArchiveError(
                f"{self.name}: `{member}` cannot be read: {error}. Download the archive again."
            ) from error

    def text(self, member: str, encoding: str) -> str:
        """Return a member as text.

        Args:
            member: the end of its path.
            encoding: "utf-8" or "latin-1".

        Raises:
            ArchiveError: as `read`, or it is not in that encoding.
        """
        try:
            return self.read(member).decode(encoding)
        except UnicodeDecodeError as error:
            raise ArchiveError(f"{self.name}: `{member}` must be {encoding}: {error}") from error

    def _find(self, member: str) -> list[str]:
        return [path for path in self._paths if f"/{path}".endswith(f"/{member}")]


def parse_rows(
    text: str, *, where: str, separator: str, schema: Mapping[str, type[pl.DataType]]
) -> pl.DataFrame:
    r"""Read rows of unquoted fields without a header.

    Args:
        text: the rows, one a line.
        where: what to call the text in messages.
        separator: what stands between two fields: one character, or more such as "::".
        schema: name and type of each column, in order.

    Returns:
        The rows.

    Raises:
        ArchiveError: a row has another number of fields, or a field is not of its type.
    """
    text = text.rstrip()
    if len(separator) > 1:
        # polars splits at one byte; this control character stands in no MovieLens file.
        text = text.replace(separator, "\x1f")
        separator = "\x1f"
    return read_csv(
        text.encode("utf-8"),
        where=where,
        schema=schema,
        has_header=False,
        separator=separator,
        quote_char=None,
    )


def read_csv(
    content: bytes, *, where: str, schema: Mapping[str, type[pl.DataType]], **options: Any
) -> pl.DataFrame:
    """Read CSV of which every number must be there; an empty text is null.

    Args:
        content: the file.
        where: what to call it in messages.
        schema: name and type of each column, in order.
        **options: of `polars.read_csv`.

    Returns:
        The rows.

    Raises:
        ArchiveError: a row has another number of fields, or a field is not of its type.
    """
    try:
        table = pl.read_csv(content, schema=dict(schema), **options)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ArchiveError(
            f"{where} must hold {', '.join(schema)} on each line, got: {reason}"
        ) from error
    # polars fills a line that is too short with nulls.
    incomplete = table.with_row_index("row").filter(
        pl.any_horizontal(cs.numeric().exclude("row").is_null())
    )
    if len(incomplete):
        raise ArchiveError(
            f"{where} must hold {', '.join(schema)} on each line; {len(incomplete)} lines lack a "
            f"number, the first is {incomplete.drop('row').row(0)}"
        )
    return table
