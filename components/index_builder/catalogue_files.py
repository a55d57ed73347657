"""Files of candidate IDs and filter values, saved as assets of the model, and their lookup.

TensorFlow's lookup tables read text files line by line and drop carriage returns. IDs and values
are therefore stored in base64 (`tf.io.encode_base64`), so that they may contain any byte.
"""

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from components.candidate_embedder.embedding_files import EmbeddingFiles


@dataclass(frozen=True)
class FilterFiles:
    """The values of one feature for each candidate, in compressed sparse row (CSR) format.

    Attributes:
        values_file: File with one distinct value per line, in base64.
        num_values: Number of distinct values.
        value_indices: Line number in `values_file` of each value of each candidate `[num_entries]`.
        row_splits: Start of each candidate's entries in `value_indices`, then the end of the last
            `[num_candidates + 1]`.
    """

    values_file: str
    num_values: int
    value_indices: npt.NDArray[np.int32]
    row_splits: npt.NDArray[np.int64]

    def by_value(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the candidates grouped by value, and the offsets of the groups.

        The candidates are `[num_entries]`, the offsets `[num_values + 1]`.
        """
        num_candidates = len(self.row_splits) - 1
        candidates = np.repeat(np.arange(num_candidates, dtype=np.int32), np.diff(self.row_splits))
        counts = np.bincount(self.value_indices, minlength=self.num_values)
        return (
            candidates[np.argsort(self.value_indices, kind="stable")],
            np.concatenate(([0], np.cumsum(counts))),
        )


@dataclass(frozen=True)
class CatalogueFiles:
    """IDs and filter values of the catalogue in index order, with the strings in local files."""

    ids_file: str
    num_candidates: int
    filters: dict[str, FilterFiles]

    @classmethod
    def write(
        cls, embeddings: EmbeddingFiles, filters: Sequence[str], directory: str
    ) -> "CatalogueFiles":
        """Write the candidate IDs and the values of the features `filters` to `directory`."""
        ids_file = os.path.join(directory, "candidate_ids.base64")
        ids = (name for block in embeddings.ids() for name in block.to_pylist())
        num_candidates = _write_lines(ids_file, ids)
        return cls(
            ids_file,
            num_candidates,
            {name: _write_filter(embeddings, name, directory) for name in filters},
        )


def _write_lines(path: str, values: Iterable[bytes]) -> int:
    count = 0
    with open(path, "wb") as file:
        for value in values:
            # Without padding, like tf.io.encode_base64.
            file.write(base64.urlsafe_b64encode(value).rstrip(b"=") + b"\n")
            count += 1
    return count


def _write_filter(embeddings: EmbeddingFiles, name: str, directory: str) -> FilterFiles:
    index_of: dict[str, int] = {}
    indices: list[npt.NDArray[np.int32]] = []
    counts: list[npt.NDArray[np.int64]] = []
    for batch in embeddings.blocks([name]):
        column = batch.column(0)
        if pa.types.is_list(column.type):
            lengths, values = pc.list_value_length(column).fill_null(0), column.flatten()
        else:
            lengths, values = column.is_valid().cast(pa.int32()), column.drop_null()
        encoded = values.dictionary_encode()
        numbers = [
            index_of.setdefault(value, len(index_of)) for value in encoded.dictionary.to_pylist()
        ]
        indices.append(np.array(numbers, np.int32)[encoded.indices.to_numpy()])
        counts.append(lengths.to_numpy(zero_copy_only=False).astype(np.int64))
    path = os.path.join(directory, f"values_of_{name}.base64")
    _write_lines(path, (value.encode() for value in index_of))
    return FilterFiles(
        path,
        len(index_of),
        np.concatenate(indices),
        np.concatenate(([0], np.cumsum(np.concatenate(counts)))),
    )


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
