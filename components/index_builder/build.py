"""Embeds the catalogue, chooses and builds the index, measures it, saves the model."""

import itertools
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from components.index_builder.config import IndexConfig
from components.index_builder.exact_index import ExactIndex
from components.index_builder.recall import measure_recall
from components.index_builder.retrieval_model import RetrievalModel
from components.index_builder.saved_retrieval_model import save_retrieval_model
from components.index_builder.search_index import SearchIndex
from models.features import FeatureSpec
from models.raw_examples import read_timelines, split_files
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
    examples_uri: str,
    query_split: str,
    spec: FeatureSpec,
    config: IndexConfig,
    model_name: str,
    directory: str,
) -> IndexReport:
    """Writes the retrieval SavedModel to `directory`.

    Raises:
        RecallTooLowError: The index finds fewer of the exact answers than the target asks.
    """
    ids, vectors = towers.embed_catalogue(split_files(examples_uri, "candidates"))
    started = time.monotonic()
    index, settings = _build(vectors, config)
    build_s = time.monotonic() - started
    files = split_files(examples_uri, query_split)
    queries = _query_vectors(towers, files, spec, config.num_recall_queries)
    recall = measure_recall(index, vectors, queries, config.k)
    report = IndexReport(
        backend=index.backend,
        k=min(config.k, len(ids)),
        recall=recall,
        recall_target=config.recall_target,
        num_candidates=len(ids),
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
    warmup = next(read_timelines(files, spec, _WARMUP_QUERIES)).inputs
    with tempfile.TemporaryDirectory() as scratch:
        ids_file = os.path.join(scratch, "candidate_ids.txt")
        with open(ids_file, "wb") as lines:
            lines.writelines(candidate + b"\n" for candidate in ids)
        model = RetrievalModel(towers, index, ids_file, spec, config.k)
        save_retrieval_model(model, directory, model_name, warmup)
    log.info("built %s", report)
    return report


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
