"""Chooses, builds and judges the index of an embedded catalogue, and saves the model."""

import logging
import math
import os
import tempfile
import time
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.catalogue_files import CatalogueFiles
from components.index_builder.config import IndexConfig
from components.index_builder.errors import IndexRefusedError
from components.index_builder.gate import check_index, to_json
from components.index_builder.index_choice import choose_index
from components.index_builder.index_report import IndexReport
from components.index_builder.recall import exact_answers, recall_of_each, search_in_batches
from components.index_builder.retrieval_model import RetrievalModel
from components.index_builder.sample_queries import hit_rate, read_questions
from components.index_builder.saved_retrieval_model import save_retrieval_model
from components.index_builder.search_index import SearchIndex
from components.index_builder.tuning import single_query_ms
from components.index_builder.warmup import warmup_requests
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
        IndexRefusedError: The index misses its recall target, or loses too many held-out events.
    """
    with tempfile.TemporaryDirectory(prefix="index_builder_") as scratch:
        vectors = embeddings.vectors(os.path.join(scratch, "vectors"))
        index, report = _choose_and_judge(towers, embeddings, vectors, query_files, spec, config)
        catalogue = CatalogueFiles.write(embeddings, config.filters, scratch)
        model = RetrievalModel(towers, index, catalogue, spec, config.k)
        query = next(read_timelines(query_files, spec, _WARMUP_QUERIES)).inputs
        warmup = warmup_requests(query, embeddings, spec, config.filters)
        save_retrieval_model(model, directory, model_name, warmup, identity)
    log.info("built %s", report)
    return report


def _choose_and_judge(
    towers: SavedTowers,
    embeddings: EmbeddingFiles,
    vectors: npt.NDArray[np.float32],
    query_files: list[str],
    spec: FeatureSpec,
    config: IndexConfig,
) -> tuple[SearchIndex, IndexReport]:
    questions = read_questions(
        towers, query_files, spec, embeddings.ids(), config.num_recall_queries
    )
    started = time.monotonic()
    choice = choose_index(vectors, questions.tuning, config)
    build_s = time.monotonic() - started
    exact = exact_answers(vectors, questions.judging, config.k)
    index, found = choice.index, exact.indices
    if index.backend != "exact":
        found = np.concatenate(list(search_in_batches(index, questions.judging, exact.k)))
    recall = float(recall_of_each(vectors, exact, found).mean())
    hit_rate_exact, hits = hit_rate(questions, exact.indices), hit_rate(questions, found)
    # Exact search loses nothing, held-out events or not.
    loss = 0.0 if index.backend == "exact" else hit_rate_exact - hits
    checks = check_index(recall, loss, config)
    report = IndexReport(
        backend=index.backend,
        reason=choice.reason,
        k=exact.k,
        recall=recall,
        recall_target=config.recall_target,
        hit_rate_exact=None if math.isnan(hit_rate_exact) else hit_rate_exact,
        hit_rate=None if math.isnan(hits) else hits,
        query_ms=round(single_query_ms(index, questions.judging, exact.k), 3),
        num_candidates=len(vectors),
        dimension=vectors.shape[1],
        num_recall_queries=len(questions.judging),
        num_tuning_queries=len(questions.tuning),
        settings=choice.settings,
        build_s=round(build_s, 3),
        gate=to_json(checks),
        trials=choice.trials,
    )
    refusals = [str(check) for check in checks if not check.passed]
    if refusals:
        log.error("refused %s", report)
        raise IndexRefusedError(
            f"the gate refused the {index.backend} index with {dict(choice.settings)}: "
            f"{'; '.join(refusals)}. Search more, or leave the settings to be tuned, or use "
            "`index.backend: exact`",
            asdict(report),
        )
    return index, report
