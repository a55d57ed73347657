"""Builds, measures and saves the retrieval model of an embedded catalogue."""

import logging
import math
import os
import tempfile
import time
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.errors import IndexRefusedError
from components.index_builder.catalogue_files import CatalogueFiles
from components.index_builder.config import IndexConfig
from components.index_builder.gate import check_index, to_json
from components.index_builder.index_choice import choose_index
from components.index_builder.index_report import IndexReport
from components.index_builder.recall import (
    SampleQueries,
    exact_answers,
    recall_of_each,
    search_in_batches,
)
from components.index_builder.retrieval_model import RetrievalModel
from components.index_builder.saved_retrieval_model import save_retrieval_model, warmup_requests
from components.index_builder.search_index import SearchIndex
from components.index_builder.tuning import single_query_ms
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines
from models.towers.saved_towers import SavedTowers

_WARMUP_QUERIES = 1

log = logging.getLogger(__name__)


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
    """Build and measure the index, and write the retrieval SavedModel to `directory`.

    The vectors are memory-mapped, so only the index has a copy in memory.

    Args:
        towers: Towers of the model.
        embeddings: Embeddings of the catalogue, computed by these towers.
        query_files: GZIP TFRecords of timelines, for sample queries and warm-up requests.
        spec: IDs and features.
        config: Settings of the index.
        model_name: Name under which the model is served.
        identity: Hash of the model's inputs (`components.index_builder.identity`).
        directory: Folder of the SavedModel; must not exist.

    Raises:
        IndexRefusedError: The index fails its gate.
    """
    with tempfile.TemporaryDirectory(prefix="index_builder_") as scratch:
        vectors = embeddings.vectors(os.path.join(scratch, "vectors"))
        index, report = _build_index(towers, embeddings, vectors, query_files, spec, config)
        catalogue = CatalogueFiles.write(embeddings, config.filters, scratch)
        model = RetrievalModel(towers, index, catalogue, spec, config.k)
        query = next(read_timelines(query_files, spec, _WARMUP_QUERIES)).inputs
        warmup = warmup_requests(query, embeddings, spec, config.filters)
        save_retrieval_model(model, directory, model_name, warmup, identity)
    log.info("built %s", report)
    return report


def _build_index(
    towers: SavedTowers,
    embeddings: EmbeddingFiles,
    vectors: npt.NDArray[np.float32],
    query_files: list[str],
    spec: FeatureSpec,
    config: IndexConfig,
) -> tuple[SearchIndex, IndexReport]:
    queries = SampleQueries.read(
        towers, query_files, spec, embeddings.ids(), config.num_recall_queries
    )
    started = time.monotonic()
    choice = choose_index(vectors, queries.tuning, config)
    build_s = time.monotonic() - started
    exact = exact_answers(vectors, queries.judging, config.k)
    index, found = choice.index, exact.indices
    if index.backend != "exact":
        found = np.concatenate(list(search_in_batches(index, queries.judging, exact.k)))
    recall = float(recall_of_each(vectors, exact, found).mean())
    hit_rate_exact, hit_rate = queries.hit_rate(exact.indices), queries.hit_rate(found)
    # Exact search has no loss, even if there are no held-out events and both hit rates are NaN.
    loss = 0.0 if index.backend == "exact" else hit_rate_exact - hit_rate
    checks = check_index(recall, loss, config)
    report = IndexReport(
        backend=index.backend,
        reason=choice.reason,
        k=exact.k,
        recall=recall,
        recall_target=config.recall_target,
        hit_rate_exact=None if math.isnan(hit_rate_exact) else hit_rate_exact,
        hit_rate=None if math.isnan(hit_rate) else hit_rate,
        query_ms=round(single_query_ms(index, queries.judging, exact.k), 3),
        num_candidates=len(vectors),
        dimension=vectors.shape[1],
        num_recall_queries=len(queries.judging),
        num_tuning_queries=len(queries.tuning),
        settings=choice.settings,
        build_s=round(build_s, 3),
        gate=to_json(checks),
        trials=choice.trials,
    )
    refusals = [str(check) for check in checks if not check.passed]
    if refusals:
        log.error("refused %s", report)
        settings = ", ".join(f"{name} {value}" for name, value in choice.settings.items())
        raise IndexRefusedError(
            f"the index gate refused the {index.backend} index ({settings}), measured with "
            f"{len(queries.judging):,} queries: {'; '.join(refusals)}. To change this: raise "
            "index.leaves_to_search or remove it to have it tuned, or set index.backend: exact",
            asdict(report),
        )
    return index, report
