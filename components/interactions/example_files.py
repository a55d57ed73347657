"""Writes Arrow record batches as gzipped TFRecord files of Examples."""

import zlib
from types import TracebackType
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.interactions.tfrecord_frames import frame

# Most of the time of writing goes into compression. Of the timelines of 900,000 ratings level 1
# makes 7.4 MB in 0.30 s, level 6 makes 6.6 MB in 0.76 s.
_COMPRESSION_LEVEL = 1
_GZIP_WINDOW = 31  # zlib's sign for a gzip header; it has no time in it, so bytes are reproducible


class ExampleFile:
    """One file of Examples; nothing of it lasts unless the `with` block ends well."""

    def __init__(self, path: str):
        self._path = path
        self._encoder = RecordBatchToExamplesEncoder()
        self._compress = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        self._stream: Any = None

    def __enter__(self) -> "ExampleFile":
        self._stream = FileSystems.create(
            self._path, compression_type=CompressionTypes.UNCOMPRESSED
        )
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends one Example for each row of lists."""
        framed = b"".join(frame(example) for example in self._encoder.encode(batch))
        self._stream.write(self._compress.compress(framed))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._stream.write(self._compress.flush())
        self._stream.close()
