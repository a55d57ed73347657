"""Opens input files on any Beam filesystem."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

READ_ERRORS = (OSError, EOFError, zlib.error)


@contextmanager
def open_input(path: str) -> Iterator[Any]:
    """Opens a file for reading bytes; `.gz` is unpacked.

    Beam would unpack too, but takes a truncated file for a whole one.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        if path.lower().endswith(".gz"):
            with gzip.open(stream) as unpacked:
                yield unpacked
        else:
            yield stream
