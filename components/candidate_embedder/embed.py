"""Embed the catalogue in Beam: each worker embeds a block of candidates and writes it to a file."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import files
from components.beam_results import MakePipeline, run_and_collect
from components.candidate_embedder.embedding_files import file_name, to_table, write_table
from components.errors import EmbeddingError
from components.interactions.buckets import new_path
from components.interactions.stable_hash import hash_strings
from models.features.spec import FeatureSpec
from models.input.raw_examples import count_examples, read_candidates
from models.towers.saved_towers import SavedTowers

_CANDIDATES_PER_BLOCK = 65_536
_CANDIDATES_PER_BATCH = 4096
_NUM_SHOWN = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Block:
    """The candidates `first` to `last - 1` of one file of Examples, given by its index."""

    file: int
    first: int
    last: int


@dataclass(frozen=True)
class EmbeddedBlock:
    """A block that a worker has embedded.

    Attributes:
        block: The candidates.
        path: Parquet file with the vectors and features.
        id_hashes: Hashes of the candidate IDs `[n]`.
        num_without_id: Number of candidates that have no ID.
        not_finite: The first few IDs whose vector has a NaN or an infinity.
        num_not_finite: Number of such IDs.
    """

    block: Block
    path: str
    id_hashes: npt.NDArray[np.uint64]
    num_without_id: int
    not_finite: tuple[bytes, ...]
    num_not_finite: int


def embed_candidates(
    model_path: str,
    spec: FeatureSpec,
    sources: Sequence[str],
    output_dir: str,
    make_pipeline: MakePipeline,
    candidates_per_block: int = _CANDIDATES_PER_BLOCK,
) -> int:
    """Write `embeddings-*.parquet`, either all files or none, and return the number of candidates.

    The rows have the order of the Examples. If a candidate ID is repeated, its first candidate is
    kept. A worker needs memory for one block, and this process needs eight bytes per candidate.

    Args:
        model_path: SavedModel of `models.towers.export`.
        spec: IDs and features.
        sources: The split `candidates`: GZIP TFRecords of raw Examples.
        output_dir: Folder for the files.
        make_pipeline: Returns a new Beam pipeline.
        candidates_per_block: Size of a block.

    Raises:
        EmbeddingError: The catalogue is empty, a candidate has no ID, or a vector is not finite.
        ChangedFeaturesError: The model was fitted with other features.
    """
    SavedTowers(model_path, spec)  # raises its errors here instead of in a worker
    scratch = files.make_folder(os.path.join(output_dir, ".incomplete"))
    try:
        found: list[EmbeddedBlock] = run_and_collect(
            make_pipeline,
            lambda pipeline: (
                pipeline
                | "Files" >> beam.Create(list(enumerate(sources)))
                # Grouping by distinct keys distributes the elements over the workers.
                | "DistributeFiles" >> beam.GroupByKey()
                | "FindBlocks" >> beam.ParDo(_FindBlocks(candidates_per_block))
                | "DistributeBlocks" >> beam.GroupByKey()
                | "Embed" >> beam.ParDo(_Embed(model_path, spec, scratch))
            ),
            scratch,
        )
        found.sort(key=lambda embedded: embedded.block)
        _check(found)
        paths, num_candidates = _without_repeated_ids(found, spec, scratch)
        names = [file_name(index, len(paths)) for index in range(len(paths))]
        files.rename(paths, [os.path.join(output_dir, name) for name in names])
    finally:
        files.remove(scratch)
    return num_candidates


class _FindBlocks(beam.DoFn):
    """Divide a file of Examples into blocks."""

    def __init__(self, candidates_per_block: int) -> None:
        self._size = candidates_per_block

    def process(self, keyed: tuple[int, Iterable[str]]) -> Iterator[tuple[str, tuple[Block, str]]]:
        file, (path,) = keyed
        total = count_examples(path)
        for first in range(0, total, self._size):
            block = Block(file, first, min(first + self._size, total))
            yield f"{file}:{first}", (block, path)


class _Embed(beam.DoFn):
    """Embed a block and write it to a file."""

    def __init__(self, model_path: str, spec: FeatureSpec, folder: str) -> None:
        self._model_path = model_path
        self._spec = spec
        self._folder = folder

    def setup(self) -> None:
        self._towers = SavedTowers(self._model_path, self._spec)

    def process(self, keyed: tuple[str, Iterable[tuple[Block, str]]]) -> Iterator[EmbeddedBlock]:
        _, ((block, source),) = keyed
        tables: list[pa.Table] = []
        broken: list[bytes] = []
        num_without_id = 0
        for batch in read_candidates(
            [source], self._spec, _CANDIDATES_PER_BATCH, slice(block.first, block.last)
        ):
            vectors = self._towers.embed_candidates(batch)
            raw = {name: values.numpy() for name, values in batch.items()}
            ids = raw[self._spec.candidate_id]
            tables.append(to_table(self._spec, raw, vectors))
            num_without_id += int((ids == b"").sum())
            broken += ids[~np.isfinite(vectors).all(axis=1)].tolist()
        if not tables:  # blocks are not empty, so the file has changed since it was counted
            raise EmbeddingError(f"{source} ended before candidate {block.first}")
        table = pa.concat_tables(tables)
        path = new_path(self._folder)
        write_table(path, table)
        yield EmbeddedBlock(
            block,
            path,
            np.concatenate([hash_strings(ids) for ids in table.column(0).chunks]),
            num_without_id,
            tuple(broken[:_NUM_SHOWN]),
            len(broken),
        )


def _check(found: Sequence[EmbeddedBlock]) -> None:
    if not found:
        raise EmbeddingError("the catalogue must have at least one candidate, but it is empty")
    num_without_id = sum(embedded.num_without_id for embedded in found)
    if num_without_id:
        raise EmbeddingError(f"every candidate must have an ID, but {num_without_id} have none")
    num_broken = sum(embedded.num_not_finite for embedded in found)
    if num_broken:
        shown = [name for embedded in found for name in embedded.not_finite][:_NUM_SHOWN]
        names = ", ".join(name.decode(errors="backslashreplace") for name in shown)
        raise EmbeddingError(
            f"vectors must be finite, but those of {num_broken} candidates have a NaN or an "
            f"infinity: {names}{', …' if num_broken > len(shown) else ''}"
        )


def _without_repeated_ids(
    found: Sequence[EmbeddedBlock], spec: FeatureSpec, folder: str
) -> tuple[list[str], int]:
    """Return the files and the number of candidates; rewrite files that have repeated IDs."""
    hashes, counts = np.unique(
        np.concatenate([embedded.id_hashes for embedded in found]), return_counts=True
    )
    suspects = hashes[counts > 1]  # repeated IDs, and IDs that happen to have the same hash
    seen: set[bytes] = set()
    paths = []
    num_repeated = 0
    for embedded in found:
        is_suspect = np.isin(embedded.id_hashes, suspects)
        if not is_suspect.any():
            paths.append(embedded.path)
            continue
        with files.open_to_read(embedded.path) as stream:
            table = pq.read_table(stream)
        kept = np.ones(len(table), bool)
        for row in np.flatnonzero(is_suspect).tolist():
            candidate = table.column(spec.candidate_id)[row].as_py()
            kept[row] = candidate not in seen
            seen.add(candidate)
        num_repeated += int((~kept).sum())
        if kept.any():
            write_table(path := new_path(folder), table.filter(pc.equal(pa.array(kept), True)))
            paths.append(path)
    if num_repeated:
        log.warning("dropped %d candidates with a repeated ID", num_repeated)
    return paths, int(counts.sum()) - num_repeated
