"""Candidate IDs, filter values and returned fields of the catalogue, and the lookup of strings.

TensorFlow's lookup tables read text files line by line and drop carriage returns. IDs and values
are therefore stored in base64 (`tf.io.encode_base64`), so that they may contain any byte.
"""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from components.candidate_embedder.embedding_files import EmbeddingFiles
from models.features.spec import FeatureConfig
from models.input.availability import Availability

# Name of the asset with the candidate IDs, one per line.
IDS_FILE = "candidate_ids.base64"
# Not base64. TensorFlow rejects an empty table, which a feature that no candidate has would need.
_LAST_LINE = b".\n"


@dataclass(frozen=True)
class FilterFiles:
    """The values of one feature for each candidate, in compressed sparse row (CSR) format.

    Attributes:
        values_file: File with one distinct value per line, in base64, and a last line that
            represents all values that no candidate has.
        value_indices: Line number of each value of each candidate `[num_entries]`.
        row_splits: Start of each candidate's entries, then the end `[num_candidates + 1]`.
    """

    values_file: str
    num_values: int
    value_indices: npt.NDArray[np.int32]
    row_splits: npt.NDArray[np.int64]


@dataclass(frozen=True)
class CatalogueFiles:
    """IDs, filter values and returned fields of the catalogue in index order.

    The strings of IDs and filters are in local files. A field is a tensor `[num_candidates]`:
    float32 for a numeric feature, and otherwise strings, in which the separator joins several
    values. Missing values are NaN or "".
    `availability` is None if candidates are always available.
    """

    ids_file: str
    num_candidates: int
    filters: dict[str, FilterFiles]
    fields: Mapping[str, tf.Tensor] = field(default_factory=dict)
    availability: Availability | None = None

    @classmethod
    def write(
        cls,
        embeddings: EmbeddingFiles,
        filters: Sequence[str],
        directory: str,
        fields: Mapping[str, FeatureConfig] | None = None,
    ) -> "CatalogueFiles":
        """Write the candidate IDs and the values of the features `filters` to `directory`.

        `fields` are the features whose values are read.
        """
        ids_file = os.path.join(directory, IDS_FILE)
        ids = (name for block in embeddings.ids() for name in block.to_pylist())
        with open(ids_file, "wb") as file:
            write_lines(file, ids)
        return cls(
            ids_file,
            embeddings.num_candidates,
            {name: _write_filter(embeddings, name, directory) for name in filters},
            {
                name: _read_field(embeddings, name, feature, directory)
                for name, feature in (fields or {}).items()
            },
            embeddings.availability(),
        )


def write_lines(file: BinaryIO, values: Iterable[bytes]) -> None:
    """Write values to a file for `LineIndex` or `read_lines`."""
    for value in values:
        # Without padding, like tf.io.encode_base64.
        file.write(base64.urlsafe_b64encode(value).rstrip(b"=") + b"\n")


def _write_filter(embeddings: EmbeddingFiles, name: str, directory: str) -> FilterFiles:
    column = pa.chunked_array([block.column(0) for block in embeddings.blocks([name])])
    if pa.types.is_list(column.type):
        lengths, values = pc.list_value_length(column).fill_null(0), pc.list_flatten(column)
    else:
        lengths, values = column.is_valid().cast(pa.int32()), column.drop_null()
    encoded = values.dictionary_encode().combine_chunks()
    distinct = encoded.dictionary.to_pylist()
    path = os.path.join(directory, f"values_of_{name}.base64")
    with open(path, "wb") as file:
        write_lines(file, (value.encode() for value in distinct))
        file.write(_LAST_LINE)
    row_splits = np.concatenate(([0], np.cumsum(lengths.to_numpy(), dtype=np.int64)))
    return FilterFiles(path, len(distinct), encoded.indices.to_numpy(), row_splits)


def _read_field(
    embeddings: EmbeddingFiles, name: str, feature: FeatureConfig, directory: str
) -> tf.Tensor:
    columns = (block.column(0) for block in embeddings.blocks([name]))
    if feature.kind == "numeric":
        return tf.concat([column.to_numpy(zero_copy_only=False) for column in columns], axis=0)
    if feature.separator is not None:
        columns = (pc.binary_join(column, feature.separator) for column in columns)
    path = os.path.join(directory, f"field_{name}.base64")
    values = (value for column in columns for value in column.fill_null("").to_pylist())
    with open(path, "wb") as file:
        write_lines(file, (value.encode() for value in values))
    return read_lines(path)


class LineIndex(tf.Module):
    """Graph lookup table that maps a value to its line number in a file of base64 lines."""

    def __init__(self, path: str, missing: int) -> None:
        super().__init__()
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                path,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            default_value=missing,
        )

    def lookup(self, values: tf.Tensor) -> tf.Tensor:
        """Return the line numbers of `values`, int32 with the same shape."""
        return tf.cast(self._table.lookup(tf.io.encode_base64(values)), tf.int32)


def read_lines(path: str) -> tf.Tensor:
    """Return the decoded lines of a base64 file, `[num_lines]`.

    The values stay in a tensor: ten million Python objects would take a gigabyte.
    """
    lines = tf.strings.split(tf.io.read_file(path), "\n")
    return tf.io.decode_base64(lines[:-1])
