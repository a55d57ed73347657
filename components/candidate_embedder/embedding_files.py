"""Parquet files with the vectors of the catalogue.

External vector stores can load the files. Each row is one candidate, with these columns:

- the candidate ID, under the name of its input column: binary, because IDs may be any bytes
  (TimelineExampleGen writes UTF-8);
- `embedding`: fixed-size list of float32; the score is its dot product with the output of
  `embed_query`;
- each candidate feature: float32 for numeric, int64 (seconds since 1970) for datetime, string for
  text and categorical, list of strings for categorical with a `separator`; null if it is missing.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from components import files
from components.errors import EmbeddingFilesError
from models.features.spec import MISSING_TIME, FeatureConfig, FeatureSpec
from models.input.availability import Availability
from models.towers.export import EMBEDDING_KEY

_PREFIX, _SUFFIX = "embeddings-", ".parquet"
_ROWS_PER_BLOCK = 65_536
_ROW_GROUP_BYTES = 32 << 20  # of the vectors, which take four bytes per number


def file_name(index: int, total: int) -> str:
    """Return the name of one of `total` files."""
    return f"{_PREFIX}{index:05d}-of-{total:05d}{_SUFFIX}"


def to_table(
    spec: FeatureSpec, raw: Mapping[str, npt.NDArray[Any]], vectors: npt.NDArray[np.float32]
) -> pa.Table:
    """Return candidates as rows of a file, given their inputs and vectors `[n, dimension]`.

    `raw` has `models.input.raw_inputs.catalogue_inputs` by name, each `[n]` or `[n, values]`.
    """
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    columns = {
        spec.candidate_id: pa.array(raw[spec.candidate_id], pa.binary()),
        EMBEDDING_KEY: pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    for name, feature in spec.catalogue_features.items():
        columns[name] = _column(raw[name], feature)
    return pa.table(columns)


def raw_candidates(
    rows: pa.RecordBatch, features: Mapping[str, FeatureConfig], spec: FeatureSpec
) -> dict[str, tf.Tensor]:
    """Return the ID and some features of rows of a file as raw inputs, as `to_table` takes them."""
    raw = {spec.candidate_id: tf.constant(rows[spec.candidate_id].to_pylist(), tf.string)}
    for name, feature in features.items():
        values = rows[name]
        if feature.kind == "numeric":
            raw[name] = tf.constant(values.fill_null(float("nan")).to_numpy(False), tf.float32)
        elif feature.kind == "datetime":
            raw[name] = tf.constant(values.fill_null(MISSING_TIME).to_numpy(False), tf.int64)
        elif feature.kind == "vector":
            vectors = tf.ragged.constant([row or [] for row in values.to_pylist()], tf.float32, 1)
            raw[name] = vectors.to_tensor(float("nan"))
        elif feature.separator:
            lists = tf.ragged.constant([row or [] for row in values.to_pylist()], tf.string, 1)
            raw[name] = lists.to_tensor("")
        else:
            raw[name] = tf.constant(values.fill_null("").to_pylist(), tf.string)
    return raw


def write_table(path: str, table: pa.Table) -> None:
    """Write rows of `to_table` as one file."""
    dimension: int = table.schema.field(EMBEDDING_KEY).type.list_size
    with files.open_to_write(path) as stream:
        pq.write_table(
            table,
            stream,
            row_group_size=max(1, _ROW_GROUP_BYTES // (4 * dimension)),
            # Vectors and IDs do not repeat, so a dictionary and compression would only cost time.
            use_dictionary=table.column_names[2:] or False,
            compression="NONE",
        )


class EmbeddingFiles:
    """The files of a `CandidateEmbeddings` artifact.

    Raises:
        EmbeddingFilesError: A file is missing.
    """

    def __init__(self, uri: str, spec: FeatureSpec):
        self._paths = files.glob(os.path.join(uri, f"{_PREFIX}*{_SUFFIX}"))
        names = [os.path.basename(path) for path in self._paths]
        if not names or names != [file_name(index, len(names)) for index in range(len(names))]:
            raise EmbeddingFilesError(
                f"{uri} must have the files {file_name(0, 1)} to the last one, but has "
                f"{', '.join(names[:5]) or 'none'}"
            )
        self.uri = uri
        self._spec = spec
        opened = [self._open(path) for path in self._paths]
        self.num_candidates = sum(file.metadata.num_rows for file in opened)
        self.dimension: int = opened[0].schema_arrow.field(EMBEDDING_KEY).type.list_size

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the columns in blocks of rows, in the order of the index."""
        for path in self._paths:
            yield from self._open(path).iter_batches(_ROWS_PER_BLOCK, columns=list(columns))

    def ids(self) -> Iterator[pa.Array]:
        """Yield the candidate IDs as bytes, block by block."""
        for block in self.blocks([self._spec.candidate_id]):
            yield block.column(0)

    def vectors(self, path: str) -> npt.NDArray[np.float32]:
        """Copy the vectors to a local file and return it mapped, `[num_candidates, dimension]`.

        The operating system can drop the pages of a mapped file, so the catalogue need not fit in
        memory.
        """
        mapped = np.memmap(path, np.float32, "w+", shape=(self.num_candidates, self.dimension))
        first = 0
        for block in self.blocks([EMBEDDING_KEY]):
            rows = block.column(0).flatten().to_numpy(zero_copy_only=False)
            mapped[first : first + len(block)] = rows.reshape(-1, self.dimension)
            first += len(block)
        mapped.flush()
        return mapped

    def availability(self) -> Availability | None:
        """Return the availability of the candidates, None if they are always available."""
        names = list(self._spec.availability)
        if not names:
            return None
        rows = pa.Table.from_batches(self.blocks(names))
        columns = {name: rows[name].fill_null(MISSING_TIME).to_numpy() for name in names}
        return Availability.of(columns, self.num_candidates)

    def _open(self, path: str) -> pq.ParquetFile:
        return pq.ParquetFile(files.open_to_read(path))


def _column(values: npt.NDArray[Any], feature: FeatureConfig) -> pa.Array:
    if feature.kind == "numeric":
        return pa.array(values, pa.float32(), mask=~np.isfinite(values))
    if feature.kind == "datetime":
        return pa.array(values, pa.int64(), mask=values == MISSING_TIME)
    present = np.isfinite(values) if feature.holds_numbers else values != b""
    if not feature.is_list:
        return pa.array(values, pa.binary(), mask=~present).cast(pa.string())
    counts = present.sum(axis=1)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    kept = pa.array(values[present])
    if not feature.holds_numbers:
        kept = kept.cast(pa.binary()).cast(pa.string())
    # In Arrow 10, a missing offset marks a missing list.
    bounds = pa.array(offsets, mask=np.append(counts == 0, False))
    return pa.ListArray.from_arrays(bounds, kept)
