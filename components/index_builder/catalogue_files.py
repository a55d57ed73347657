"""What the retrieval model needs of the catalogue beside its vectors, as files for its assets.

A lookup table of TensorFlow reads a file of lines, and drops carriage returns on the way. Ids and
values stand there in base64 (`tf.io.encode_base64`), so that they may hold any byte.
"""

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.candidate_embedder.embedding_files import EmbeddingFiles

_IDS_FILE = "candidate_ids.base64"


@dataclass(frozen=True)
class FilterFiles:
    """The values of one feature by candidate, and the candidates by value.

    Both are compressed sparse rows: `[num_entries]` and where each row begins, and the end.

    Attributes:
        values_file: The different values, one a line.
        num_values: How many.
        value_indices: Lines of the candidates' values, candidate after candidate.
        row_splits: Of `value_indices`, `[num_candidates + 1]`.
    """

    values_file: str
    num_values: int
    value_indices: npt.NDArray[np.int32]
    row_splits: npt.NDArray[np.int64]

    def by_value(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Returns the candidates of each value in turn, and where each value's begin and end."""
        num_candidates = len(self.row_splits) - 1
        candidates = np.repeat(np.arange(num_candidates, dtype=np.int32), np.diff(self.row_splits))
        counts = np.bincount(self.value_indices, minlength=self.num_values)
        return (
            candidates[np.argsort(self.value_indices, kind="stable")],
            np.concatenate(([0], np.cumsum(counts))),
        )


@dataclass(frozen=True)
class CatalogueFiles:
    """A catalogue on local disk, in the order of the index.

    Attributes:
        ids_file: The candidate ids, one a line.
        num_candidates: How many.
        filters: By the feature's name.
    """

    ids_file: str
    num_candidates: int
    filters: dict[str, FilterFiles]

    @classmethod
    def write(
        cls, embeddings: EmbeddingFiles, filters: Sequence[str], directory: str
    ) -> "CatalogueFiles":
        """Writes what `embeddings` holds.

        Args:
            embeddings: The catalogue.
            filters: Categorical candidate features that requests may filter by.
            directory: Gets the files.
        """
        ids_file = os.path.join(directory, _IDS_FILE)
        num_candidates = _write_lines(ids_file, embeddings.ids())
        return cls(
            ids_file,
            num_candidates,
            {name: _write_filter(embeddings, name, directory) for name in filters},
        )


def _write_lines(path: str, blocks: Iterable[Any]) -> int:
    count = 0
    with open(path, "wb") as file:
        for block in blocks:
            lines = _base64_lines(block.to_pylist())
            file.writelines(lines)
            count += len(block)
    return count


def _base64_lines(values: Iterable[bytes]) -> Iterator[bytes]:
    # As tf.io.encode_base64 has it: without padding.
    return (base64.urlsafe_b64encode(value).rstrip(b"=") + b"\n" for value in values)


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
        places = [
            index_of.setdefault(value, len(index_of)) for value in encoded.dictionary.to_pylist()
        ]
        indices.append(np.array(places, np.int32)[encoded.indices.to_numpy()])
        counts.append(lengths.to_numpy(zero_copy_only=False).astype(np.int64))
    path = os.path.join(directory, f"values_of_{name}.base64")
    with open(path, "wb") as file:
        file.writelines(_base64_lines(value.encode() for value in index_of))
    return FilterFiles(
        path,
        len(index_of),
        np.concatenate(indices),
        np.concatenate(([0], np.cumsum(np.concatenate(counts)))),
    )
