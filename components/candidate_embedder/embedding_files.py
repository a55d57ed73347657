"""The catalogue's vectors as Parquet: what is written, and how it is read in blocks.

An external vector store reads the files as they are. Each candidate stands in one row:

- the candidate id, under the name of its column: binary, the bytes of the id (UTF-8 where the
  Examples come from TimelineExampleGen);
- `embedding`: fixed-size list of float32; its dot product with the vector of `embed_query` is the
  score;
- each candidate feature as the catalogue has it: float32 for numeric, string for text and
  categorical, list of strings for categorical with a `separator`; null where it is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from models.features.spec import FeatureConfig, FeatureSpec
from models.towers.export import EMBEDDING_KEY

_PREFIX, _SUFFIX = "embeddings-", ".parquet"
_ROWS_A_BLOCK = 65_536


class EmbeddingFilesError(Exception):
    """The files are not what an embedding of a catalogue leaves."""


def file_name(place: int, total: int) -> str:
    """Returns the name of one of `total` files."""
    return f"{_PREFIX}{place:05d}-of-{total:05d}{_SUFFIX}"


def schema(spec: FeatureSpec, dimension: int) -> pa.Schema:
    """Returns the schema of every file."""
    return pa.schema(
        [
            pa.field(spec.candidate_id, pa.binary(), nullable=False),
            pa.field(EMBEDDING_KEY, pa.list_(pa.float32(), dimension), nullable=False),
            *(pa.field(name, _type(feature)) for name, feature in spec.candidate_features.items()),
        ]
    )


def to_table(
    spec: FeatureSpec, raw: Mapping[str, npt.NDArray[Any]], vectors: npt.NDArray[np.float32]
) -> pa.Table:
    """Returns candidates as rows of a file.

    Args:
        spec: Ids and features.
        raw: `models.input.raw_inputs.candidate_inputs` by name, `[n]` or `[n, values]` each.
        vectors: `[n, dimension]` float32.

    Raises:
        EmbeddingFilesError: A feature's text is not UTF-8.
    """
    dimension = vectors.shape[1]
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    columns = [
        pa.array(raw[spec.candidate_id], pa.binary()),
        pa.FixedSizeListArray.from_arrays(flat, dimension),
    ]
    for name, feature in spec.candidate_features.items():
        try:
            columns.append(_column(raw[name], feature))
        except pa.ArrowInvalid as error:
            raise EmbeddingFilesError(
                f"candidate feature {name!r} holds text that is not UTF-8: {error}"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema(spec, dimension))


class EmbeddingWriter:
    """Writes one file."""

    def __init__(self, path: str, file_schema: pa.Schema):
        self._stream = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
        # Vectors hardly repeat: a dictionary and a compressor would only cost time.
        texts = [field.name for field in file_schema if field.name != EMBEDDING_KEY]
        self._writer = pq.ParquetWriter(
            self._stream, file_schema, use_dictionary=texts[1:] or False, compression="NONE"
        )

    def write(self, table: pa.Table) -> None:
        """Appends rows."""
        self._writer.write_table(table)

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
        self._stream.close()


class EmbeddingFiles:
    """The files of a `CandidateEmbeddings` artifact.

    Args:
        uri: Of the artifact.
        spec: Ids and features.

    Raises:
        EmbeddingFilesError: There are no files, or some are missing.
    """

    def __init__(self, uri: str, spec: FeatureSpec):
        (found,) = FileSystems.match([FileSystems.join(uri, f"{_PREFIX}*{_SUFFIX}")])
        self._paths: list[str] = sorted(entry.path for entry in found.metadata_list)
        names = [path.rsplit("/", 1)[-1] for path in self._paths]
        if not names or names != [file_name(place, len(names)) for place in range(len(names))]:
            raise EmbeddingFilesError(
                f"{uri} must hold {file_name(0, 1)}, or all of several, got "
                f"{', '.join(names[:5]) or 'none'}"
            )
        self.uri = uri
        self._spec = spec
        metadata = [self._open(path).metadata for path in self._paths]
        self.num_candidates = sum(entry.num_rows for entry in metadata)
        self.dimension: int = (
            self._open(self._paths[0]).schema_arrow.field(EMBEDDING_KEY).type.list_size
        )

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields the columns in blocks of rows, in the order of the index."""
        for path in self._paths:
            yield from self._open(path).iter_batches(_ROWS_A_BLOCK, columns=list(columns))

    def ids(self) -> Iterator[pa.Array]:
        """Yields the candidate ids as bytes, block by block."""
        for block in self.blocks([self._spec.candidate_id]):
            yield block.column(0)

    def vectors(self, path: str) -> npt.NDArray[np.float32]:
        """Copies the vectors to a local file and returns it mapped, `[num_candidates, dimension]`.

        Pages of a mapped file are the operating system's to drop: a catalogue need not fit in
        memory to be read.
        """
        mapped = np.memmap(path, np.float32, "w+", shape=(self.num_candidates, self.dimension))
        first = 0
        for block in self.blocks([EMBEDDING_KEY]):
            rows = block.column(0).flatten().to_numpy(zero_copy_only=False)
            mapped[first : first + len(block)] = rows.reshape(-1, self.dimension)
            first += len(block)
        mapped.flush()
        del mapped
        return np.memmap(path, np.float32, "r", shape=(self.num_candidates, self.dimension))

    def _open(self, path: str) -> pq.ParquetFile:
        return pq.ParquetFile(
            FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        )


def _type(feature: FeatureConfig) -> pa.DataType:
    if feature.kind == "numeric":
        return pa.float32()
    return pa.list_(pa.string()) if feature.separator else pa.string()


def _column(values: npt.NDArray[Any], feature: FeatureConfig) -> pa.Array:
    if feature.kind == "numeric":
        return pa.array(values, pa.float32(), mask=~np.isfinite(values))
    present = values != b""
    if not feature.separator:
        return pa.array(values, pa.binary(), mask=~present).cast(pa.string())
    counts = present.sum(axis=1)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    kept = pa.array(values[present], pa.binary()).cast(pa.string())
    # Arrow 10 marks a missing list by a missing offset.
    bounds = pa.array(offsets, mask=np.append(counts == 0, False))
    return pa.ListArray.from_arrays(bounds, kept)
