"""Whether a file is CSV or Parquet."""

from typing import Literal

from components.timeline_example_gen.config import DataConfig
from components.timeline_example_gen.errors import UnreadableFileError

FileFormat = Literal["csv", "parquet"]

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def format_of(data: DataConfig, path: str) -> FileFormat:
    """Returns the format of a file, as the settings say or by its suffix.

    Raises:
        UnreadableFileError: Neither tells.
    """
    if data.format != "auto":
        return data.format
    for suffix, file_format in _SUFFIXES.items():
        if path.lower().endswith(suffix):
            return file_format
    raise UnreadableFileError(
        f"{path}: the suffix does not tell the format (known: {', '.join(_SUFFIXES)}); set "
        "`data.format` to csv or parquet"
    )
