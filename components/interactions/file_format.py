"""Whether a file is CSV, Parquet or TFRecord."""

from typing import Literal

from components.interactions.config import DataConfig
from components.interactions.errors import UnreadableFileError
from components.interactions.input_stream import READ_ERRORS
from components.interactions.tfrecord_frames import HEAD_BYTES, is_head, open_records

FileFormat = Literal["csv", "parquet", "tfrecord"]

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecord.gz": "tfrecord",
    ".tfrecords": "tfrecord",
    ".tfrecords.gz": "tfrecord",
}


def format_of(data: DataConfig, path: str) -> FileFormat | None:
    """Returns the format of a file, as the settings say, by its suffix or by its first bytes.

    None: an empty file, gzipped or not, has none where its name tells nothing.

    Raises:
        UnreadableFileError: None of them tells, and there is something to read.
    """
    if data.format != "auto":
        return data.format
    found = detect_format(path)
    if found is None and not _is_empty(path):
        raise UnreadableFileError(
            f"{path}: the suffix does not tell the format (known: {', '.join(_SUFFIXES)}); set "
            "`data.format` to csv, parquet or tfrecord"
        )
    return found


def detect_format(path: str) -> FileFormat | None:
    """Returns the format by the suffix or, of TFRecord, by the first bytes; None: neither tells."""
    for suffix, file_format in _SUFFIXES.items():
        if path.lower().endswith(suffix):
            return file_format
    try:
        with open_records(path) as stream:
            return "tfrecord" if is_head(stream.read(HEAD_BYTES)) else None
    except READ_ERRORS:
        return None


def _is_empty(path: str) -> bool:
    try:
        with open_records(path) as stream:
            return not stream.read(1)
    except READ_ERRORS:
        return False
