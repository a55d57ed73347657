"""Embeds the catalogue in Beam: a block of candidates at a time, each block a file."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from components.beam_results import MakePipeline, make_folder, remove_folder, run_and_collect
from components.candidate_embedder.embedding_files import (
    EmbeddingWriter,
    file_name,
    schema,
    to_table,
)
from components.interactions.buckets import new_path
from components.interactions.stable_hash import hash_strings
from models.features.spec import FeatureSpec
from models.input.raw_examples import count_examples, read_candidates
from models.towers.saved_towers import SavedTowers

_CANDIDATES_A_BLOCK = 65_536
_CANDIDATES_A_BATCH = 4096
# Of vectors that are held before they are written.
_ROW_GROUP_BYTES = 32 << 20
_NUM_SHOWN = 5
_BYTES_A_NUMBER = 4

log = logging.getLogger(__name__)


class EmbeddingError(Exception):
    """The catalogue cannot be embedded; running again does not help."""


@dataclass(frozen=True, order=True)
class Block:
    """Some candidates of one file of Examples.

    Attributes:
        file: Index of the file.
        first: Its first candidate's place in the file.
        last: The place after its last one.
    """

    file: int
    first: int
    last: int


@dataclass(frozen=True)
class EmbeddedBlock:
    """What a worker made of a block.

    Attributes:
        block: Which.
        path: The Parquet file.
        id_hashes: Of its candidate ids `[n]`.
        num_nameless: Candidates without an id.
        not_finite: Ids whose vector holds a NaN or an infinity, the first few.
        num_not_finite: How many there are.
    """

    block: Block
    path: str
    id_hashes: npt.NDArray[np.uint64]
    num_nameless: int
    not_finite: tuple[bytes, ...]
    num_not_finite: int


def embed_candidates(
    model_path: str,
    spec: FeatureSpec,
    files: Sequence[str],
    output_dir: str,
    make_pipeline: MakePipeline,
    candidates_a_block: int = _CANDIDATES_A_BLOCK,
) -> int:
    """Writes `embeddings-*.parquet`, all of them or none.

    The order of the rows is that of the Examples, whatever the workers did. A candidate id that
    comes again is dropped. A worker holds one block; this process holds eight bytes a candidate.

    Args:
        model_path: SavedModel of `models.towers.export`.
        spec: Ids and features.
        files: The `candidates` split: GZIP TFRecords of raw Examples.
        output_dir: Gets the files.
        make_pipeline: Returns a new Beam pipeline.
        candidates_a_block: How many candidates a worker takes at once.

    Returns:
        The number of candidates.

    Raises:
        EmbeddingError: There is no candidate, or one without id, or a vector is not finite.
        ChangedFeaturesError: The model was fitted with other features.
    """
    SavedTowers(model_path, spec)  # says so here, and not from a worker, if the features differ
    scratch = make_folder(FileSystems.join(output_dir, ".incomplete"))
    try:
        found: list[EmbeddedBlock] = run_and_collect(
            make_pipeline,
            lambda pipeline: (
                pipeline
                | "Files" >> beam.Create(list(enumerate(files)))
                # Grouping by distinct keys spreads them over the workers.
                | "SpreadFiles" >> beam.GroupByKey()
                | "FindBlocks" >> beam.ParDo(_FindBlocks(candidates_a_block))
                | "SpreadBlocks" >> beam.GroupByKey()
                | "Embed" >> beam.ParDo(_Embed(model_path, spec, scratch))
            ),
            scratch,
        )
        found.sort(key=lambda embedded: embedded.block)
        _check(found)
        paths, num_candidates = _without_repeated(found, spec, scratch)
        targets = [file_name(place, len(paths)) for place in range(len(paths))]
        FileSystems.rename(paths, [FileSystems.join(output_dir, name) for name in targets])
    finally:
        remove_folder(scratch)
    return num_candidates


class _FindBlocks(beam.DoFn):
    """Cuts a file of Examples into blocks, which workers then read apart."""

    def __init__(self, candidates_a_block: int):
        self._size = candidates_a_block

    def process(self, keyed: tuple[int, Iterable[str]]) -> Iterator[tuple[str, tuple[Block, str]]]:
        file, (path,) = keyed
        total = count_examples(path)
        for first in range(0, total, self._size):
            block = Block(file, first, min(first + self._size, total))
            yield f"{file}:{first}", (block, path)


class _Embed(beam.DoFn):
    """Embeds a block into a file."""

    def __init__(self, model_path: str, spec: FeatureSpec, folder: str):
        self._model_path = model_path
        self._spec = spec
        self._folder = folder

    def setup(self) -> None:
        self._towers = SavedTowers(self._model_path, self._spec)

    def process(self, keyed: tuple[str, Iterable[tuple[Block, str]]]) -> Iterator[EmbeddedBlock]:
        _, ((block, source),) = keyed
        path = new_path(self._folder)
        writer: EmbeddingWriter | None = None
        tables: list[pa.Table] = []
        hashes, broken, num_nameless = [], [], 0
        for batch in read_candidates(
            [source], self._spec, _CANDIDATES_A_BATCH, slice(block.first, block.last)
        ):
            vectors = self._towers.embed_candidates(batch)
            raw = {name: values.numpy() for name, values in batch.items()}
            table = to_table(self._spec, raw, vectors)
            num_nameless += int((raw[self._spec.candidate_id] == b"").sum())
            hashes.append(hash_strings(table.column(0).combine_chunks()))
            broken += raw[self._spec.candidate_id][~np.isfinite(vectors).all(axis=1)].tolist()
            if writer is None:
                writer = EmbeddingWriter(path, schema(self._spec, vectors.shape[1]))
            tables.append(table)
            if sum(map(len, tables)) * vectors.shape[1] * _BYTES_A_NUMBER >= _ROW_GROUP_BYTES:
                writer.write(pa.concat_tables(tables))
                tables = []
        if writer is None:  # Blocks are not empty: the file has changed meanwhile.
            raise EmbeddingError(f"{source} ended before candidate {block.first}")
        if tables:
            writer.write(pa.concat_tables(tables))
        writer.close()
        yield EmbeddedBlock(
            block,
            path,
            np.concatenate(hashes),
            num_nameless,
            tuple(broken[:_NUM_SHOWN]),
            len(broken),
        )


def _check(found: Sequence[EmbeddedBlock]) -> None:
    if not found:
        raise EmbeddingError("the catalogue must hold a candidate, got none")
    num_nameless = sum(embedded.num_nameless for embedded in found)
    if num_nameless:
        raise EmbeddingError(f"every candidate must have an id, but {num_nameless} have none")
    num_broken = sum(embedded.num_not_finite for embedded in found)
    if num_broken:
        shown = [name for embedded in found for name in embedded.not_finite][:_NUM_SHOWN]
        names = ", ".join(name.decode(errors="backslashreplace") for name in shown)
        raise EmbeddingError(
            f"vectors must be finite, but those of {num_broken} candidates hold a NaN or an "
            f"infinity: {names}{', …' if num_broken > len(shown) else ''}"
        )


def _without_repeated(
    found: Sequence[EmbeddedBlock], spec: FeatureSpec, folder: str
) -> tuple[list[str], int]:
    """Returns the files, written anew where a candidate came again, and how many candidates."""
    hashes, counts = np.unique(
        np.concatenate([embedded.id_hashes for embedded in found]), return_counts=True
    )
    num_candidates = int(counts.sum())
    suspects = hashes[counts > 1]
    if not len(suspects):
        return [embedded.path for embedded in found], num_candidates
    seen: set[bytes] = set()
    paths = []
    num_repeated = 0
    for embedded in found:
        is_suspect = np.isin(embedded.id_hashes, suspects)
        if not is_suspect.any():
            paths.append(embedded.path)
            continue
        with FileSystems.open(embedded.path) as stream:
            table = pq.read_table(stream)
        kept = np.ones(len(table), bool)
        for row in np.flatnonzero(is_suspect).tolist():
            candidate = table.column(spec.candidate_id)[row].as_py()
            kept[row] = candidate not in seen
            seen.add(candidate)
        num_repeated += int((~kept).sum())
        if not kept.any():
            continue
        writer = EmbeddingWriter(path := new_path(folder), table.schema)
        writer.write(table.filter(pc.equal(pa.array(kept), True)))
        writer.close()
        paths.append(path)
    if num_repeated:
        log.warning("dropped %d candidates whose id had come before", num_repeated)
    return paths, num_candidates - num_repeated
