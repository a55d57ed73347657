"""Embeds the catalogue, chooses and builds the index, measures it, saves the model."""

import itertools
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.catalogue_files import CatalogueFiles
from components.index_builder.config import IndexConfig
from components.index_builder.exact_index import ExactIndex
from components.index_builder.recall import measure_recall
from components.index_builder.retrieval_model import RetrievalModel
from components.index_builder.saved_retrieval_model import save_retrieval_model
from components.index_builder.search_index import SearchIndex
from components.index_builder.warmup import warmup_requests
from models.features import FeatureSpec
from models.raw_examples import read_timelines
from models.saved_towers import SavedTowers

_QUERIES_A_BATCH = 256
_WARMUP_QUERIES = 1
# Below this many candidates ScaNN cannot train its 16-centre codebooks well.
_LEAST_FOR_SCANN = 256

log = logging.getLogger(__name__)


class IndexBuildError(Exception):
    """Base of what the index refuses."""


class RecallTooLowError(IndexBuildError):
    """The index misses the recall target; other settings may help, running again does not."""


@dataclass(frozen=True)
class IndexReport:
    """What was built.

    Attributes:
        backend: `exact` or `scann`.
        k: Candidates in an answer.
        recall: Measured recall@k against exact search on real queries; 1.0 for exact.
        recall_target: What it had to reach.
        num_candidates: In the index.
        dimension: Of the vectors.
        num_recall_queries: Queries on which recall was measured.
        settings: Of the backend.
        build_s: Seconds to build the index.
    """

    backend: str
    k: int
    recall: float
    recall_target: float
    num_candidates: int
    dimension: int
    num_recall_queries: int
    settings: dict[str, int]
    build_s: float


def build_retrieval_model(
    towers: SavedTowers,
    embeddings: EmbeddingFiles,
    query_files: list[str],
    spec: FeatureSpec,
    config: IndexConfig,
    model_name: str,
    identity: str,
    directory: str,
) -> IndexReport:
    """Writes the retrieval SavedModel to `directory`.

    The vectors are read from a mapped file: beside it, memory holds what the index keeps of them.

    Args:
        towers: Of the model.
        embeddings: The catalogue, embedded by them.
        query_files: GZIP TFRecords of timelines: questions to measure and to warm up with.
        spec: Ids and features.
        config: Of the index.
        model_name: Under which it is served.
        identity: What the model is made of (`components.index_builder.identity`).
        directory: Of the SavedModel; must not exist.

    Raises:
        RecallTooLowError: The index finds fewer of the exact answers than the target asks.
    """
    with tempfile.TemporaryDirectory(prefix="index_builder_") as scratch:
        vectors = embeddings.vectors(os.path.join(scratch, "vectors"))
        index, report = _build_and_measure(towers, vectors, query_files, spec, config)
        catalogue = CatalogueFiles.write(embeddings, config.filters, scratch)
        model = RetrievalModel(towers, index, catalogue, spec, config.k)
        query = next(read_timelines(query_files, spec, _WARMUP_QUERIES)).inputs
        warmup = warmup_requests(query, embeddings, spec, config.filters)
        save_retrieval_model(model, directory, model_name, warmup, identity)
    log.info("built %s", report)
    return report


def _build_and_measure(
    towers: SavedTowers,
    vectors: npt.NDArray[np.float32],
    query_files: list[str],
    spec: FeatureSpec,
    config: IndexConfig,
) -> tuple[SearchIndex, IndexReport]:
    started = time.monotonic()
    index, settings = _build(vectors, config)
    build_s = time.monotonic() - started
    queries = _query_vectors(towers, query_files, spec, config.num_recall_queries)
    recall = measure_recall(index, vectors, queries, config.k)
    report = IndexReport(
        backend=index.backend,
        k=min(config.k, len(vectors)),
        recall=recall,
        recall_target=config.recall_target,
        num_candidates=len(vectors),
        dimension=vectors.shape[1],
        num_recall_queries=len(queries),
        settings=settings,
        build_s=round(build_s, 3),
    )
    if recall < config.recall_target:
        raise RecallTooLowError(
            f"the {index.backend} index has recall@{config.k} {recall:.4f}, `index.recall_target` "
            f"is {config.recall_target}; search more leaves (now {settings}) or use "
            "`index.backend: exact`"
        )
    return index, report


def _build(
    vectors: npt.NDArray[np.float32], config: IndexConfig
) -> tuple[SearchIndex, dict[str, int]]:
    num_candidates = len(vectors)
    wants_scann = config.backend == "scann" or (
        config.backend == "auto" and num_candidates > config.max_exact_candidates
    )
    if not wants_scann or num_candidates < _LEAST_FOR_SCANN:
        if wants_scann:
            log.warning(
                "%d candidates are too few for ScaNN (%d); building the exact index",
                num_candidates,
                _LEAST_FOR_SCANN,
            )
        return ExactIndex(vectors), {}
    # Only here: an exact index must be built where ScaNN is not installed.
    from components.index_builder.scann_index import ScannIndex, ScannSettings

    settings = ScannSettings.choose(
        num_candidates, config.k, config.leaves, config.leaves_to_search, config.reorder
    )
    return ScannIndex(vectors, config.k, settings), asdict(settings)


def _query_vectors(
    towers: SavedTowers, files: list[str], spec: FeatureSpec, count: int
) -> npt.NDArray[np.float32]:
    batches = read_timelines(files, spec, _QUERIES_A_BATCH)
    enough = itertools.islice(batches, -(-count // _QUERIES_A_BATCH))
    return np.concatenate([towers.embed_queries(batch.inputs) for batch in enough])[:count]
