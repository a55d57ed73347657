"""Embed the catalogue in Beam: each worker embeds a block of candidates and writes it to a file."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components import files
from components.beam_results import MakePipeline, run_and_collect
from components.candidate_embedder.embedding_files import file_name, to_table, write_table
from components.errors import EmbeddingError
from components.interactions.buckets import new_path
from models.features.spec import FeatureSpec
from models.input.raw_examples import count_examples, read_candidates
from models.towers.saved_towers import SavedTowers

_CANDIDATES_PER_BLOCK = 65_536
_CANDIDATES_PER_BATCH = 4096
_NUM_SHOWN = 5

# A block of candidates: the index of its file of Examples, and its first candidate there.
_Block = tuple[int, int]


class _Embedded(NamedTuple):
    """A block in a Parquet file, and the IDs of the first few vectors that are not finite."""

    block: _Block
    path: str
    num_not_finite: int
    not_finite: list[bytes]


def embed_candidates(
    model_path: str,
    spec: FeatureSpec,
    sources: Sequence[str],
    output_dir: str,
    make_pipeline: MakePipeline,
    candidates_per_block: int = _CANDIDATES_PER_BLOCK,
) -> None:
    """Write `embeddings-*.parquet`, either all files or none, with the rows in the same order.

    `sources` are GZIP TFRecords of raw Examples. Ingestion has made sure that IDs exist and are
    unique. A worker needs memory for one block.

    Raises:
        EmbeddingError: The catalogue is empty, or a vector is not finite.
        ChangedFeaturesError: The model was trained with other features.
    """
    SavedTowers(model_path, spec)  # raises its errors here instead of in a worker
    scratch = files.make_folder(os.path.join(output_dir, ".incomplete"))
    try:
        found: list[_Embedded] = run_and_collect(
            make_pipeline,
            lambda pipeline: (
                pipeline
                | "Files" >> beam.Create(list(enumerate(sources)))
                # Grouping by distinct keys distributes the elements over the workers.
                | "DistributeFiles" >> beam.GroupByKey()
                | "FindBlocks" >> beam.FlatMap(_blocks, candidates_per_block)
                | "DistributeBlocks" >> beam.GroupByKey()
                | "Embed" >> beam.ParDo(_Embed(model_path, spec, candidates_per_block, scratch))
            ),
            scratch,
        )
        found.sort()
        _check(found)
        targets = [
            os.path.join(output_dir, file_name(index, len(found))) for index in range(len(found))
        ]
        files.rename([embedded.path for embedded in found], targets)
    finally:
        files.remove(scratch)


def _blocks(keyed: tuple[int, Iterable[str]], size: int) -> Iterator[tuple[_Block, str]]:
    file, (path,) = keyed
    for first in range(0, count_examples(path), size):
        yield (file, first), path


class _Embed(beam.DoFn):
    """Embed a block and write it to a file."""

    def __init__(self, model_path: str, spec: FeatureSpec, size: int, folder: str) -> None:
        self._model_path, self._spec = model_path, spec
        self._size, self._folder = size, folder

    def setup(self) -> None:
        self._towers = SavedTowers(self._model_path, self._spec)

    def process(self, keyed: tuple[_Block, Iterable[str]]) -> Iterator[_Embedded]:
        block, (source,) = keyed
        tables: list[pa.Table] = []
        broken: list[bytes] = []
        rows = slice(block[1], block[1] + self._size)
        for batch in read_candidates([source], self._spec, _CANDIDATES_PER_BATCH, rows):
            vectors = self._towers.embed_candidates(batch)
            raw = {name: values.numpy() for name, values in batch.items()}
            tables.append(to_table(self._spec, raw, vectors))
            broken += raw[self._spec.candidate_id][~np.isfinite(vectors).all(axis=1)].tolist()
        path = new_path(self._folder)
        write_table(path, pa.concat_tables(tables))
        yield _Embedded(block, path, len(broken), broken[:_NUM_SHOWN])


def _check(found: Sequence[_Embedded]) -> None:
    if not found:
        raise EmbeddingError("the catalogue must have at least one candidate, but it is empty")
    num_broken = sum(embedded.num_not_finite for embedded in found)
    if num_broken:
        shown = [name for embedded in found for name in embedded.not_finite][:_NUM_SHOWN]
        names = ", ".join(name.decode(errors="backslashreplace") for name in shown)
        raise EmbeddingError(
            f"vectors must be finite, but those of {num_broken} candidates have a NaN or an "
            f"infinity: {names}{', …' if num_broken > len(shown) else ''}"
        )
