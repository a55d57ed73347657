"""Build, measure and save the retrieval model of an embedded catalogue."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa

from components.candidate_embedder.embedding_files import EmbeddingFiles, raw_candidates
from components.errors import IndexRefusedError
from components.gates import without_nan
from components.index_builder.catalogue_files import CatalogueFiles
from components.index_builder.config import IndexConfig
from components.index_builder.export import save_retrieval_model, warmup_requests
from components.index_builder.gate import check_index, refusal
from components.index_builder.index_choice import IndexChoice, choose_index, single_query_ms
from components.index_builder.known_histories import HistorySource
from components.index_builder.ranked_signatures import RankedRetrievalModel
from components.index_builder.recall import (
    SampleQueries,
    Vectors,
    exact_answers,
    recall_of_each,
    search_in_batches,
)
from components.index_builder.search_index import ExactIndex
from components.index_builder.served_signatures import RetrievalModel
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines
from models.ranking.saved_stage import load_stage, read_settings
from models.towers.saved_towers import SavedTowers

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
    *,
    return_fields: Sequence[str] = (),
    ranked: bool = True,
    histories: HistorySource | None = None,
) -> dict[str, Any]:
    """Write the retrieval SavedModel to a new folder, and return the report of its index.

    The towers have computed the embeddings. The timelines in `query_files` provide sample queries
    and a warm-up request. The vectors are memory-mapped, so only the index has a copy in memory.
    If the model has a ranking stage and `ranked` is true, the stage is part of the retrieval model.
    `return_fields` are the features whose values answers contain.
    Otherwise, a stage with tasks only predicts these, and the order is that of the retriever.
    The model keeps the histories of `histories`.

    Raises:
        IndexRefusedError: The index fails its gate, or the histories are too large.
        ValueError: There are no queries to measure the index with.
    """
    with tempfile.TemporaryDirectory(prefix="index_builder_") as scratch:
        vectors = embeddings.vectors(os.path.join(scratch, "vectors"))
        stage, num_ranked = read_settings(towers.directory), None
        if stage is not None and not ranked and not stage.tasks:
            stage = None
        stored = None
        if histories is not None:
            ids_of_index = pa.concat_arrays(list(embeddings.ids()))
            stored = histories.read(spec, ids_of_index, scratch)
        searched = config
        if stage is not None:
            # The index must be good enough for the candidates of the ranker.
            num_ranked = max(config.k, stage.num_candidates)
            searched = config.model_copy(update={"k": num_ranked})
        queries = SampleQueries.read(
            towers, query_files, spec, embeddings.ids(), config.num_recall_queries
        )
        started = time.monotonic()
        choice = choose_index(vectors, queries.tuning, searched)
        build_s = time.monotonic() - started
        fields = {name: spec.catalogue_features[name] for name in return_fields}
        catalogue = CatalogueFiles.write(embeddings, config.filters, scratch, fields)
        build: Callable[..., RetrievalModel] = RetrievalModel
        if num_ranked is not None:
            ids = [name for block in embeddings.ids() for name in block.to_pylist()]
            blocks = embeddings.blocks([spec.candidate_id, *spec.candidate_features])
            raw = (raw_candidates(block, spec.candidate_features, spec) for block in blocks)
            ranking = load_stage(towers, spec, ids, raw, choice.index.vectors_at)
            build = partial(RankedRetrievalModel, ranking, num_ranked, orders=ranked)
        model = build(
            towers=towers,
            index=choice.index,
            catalogue=catalogue,
            spec=spec,
            k=config.k,
            histories=stored,
        )
        report = _measure(model, choice, vectors, queries, config, num_ranked, build_s)
        if stored is not None:
            report["known_histories"] = stored.report()
        query = next(read_timelines(query_files, spec, batch_size=1)).inputs
        warmup = warmup_requests(query, embeddings, spec, config.filters, ranked=stage is not None)
        save_retrieval_model(model, directory, model_name, warmup, identity)
    log.info("built %s", report)
    return report


def _measure(
    model: RetrievalModel,
    choice: IndexChoice,
    vectors: Vectors,
    queries: SampleQueries,
    config: IndexConfig,
    num_ranked: int | None,
    build_s: float,
) -> dict[str, Any]:
    """Return the report of an index that passes the gate.

    Raises:
        IndexRefusedError: The index fails its gate.
    """
    index = choice.index
    exact = exact_answers(vectors, queries.judging, num_ranked or config.k)
    found = exact.indices
    if index.backend != "exact":
        found, _ = search_in_batches(index.search, queries.judging, exact.k)
    recall = float(recall_of_each(vectors, exact, found).mean())
    hit_rate_exact, hit_rate = queries.hit_rate(exact.indices), queries.hit_rate(found)
    if isinstance(model, RankedRetrievalModel):
        hit_rate_exact = hit_rate = queries.hit_rate(model.answers(queries.inputs))
        if index.backend != "exact":
            answers = model.answers(queries.inputs, ExactIndex(vectors))
            hit_rate_exact = queries.hit_rate(answers)
    # Exact search has no loss, even if there are no held-out events and both hit rates are NaN.
    loss = 0.0 if index.backend == "exact" else hit_rate_exact - hit_rate
    checks = check_index(recall, loss, config, num_ranked)
    report: dict[str, Any] = without_nan(
        {
            "backend": index.backend,
            "reason": choice.reason,
            "k": exact.k,
            "recall": recall,
            "recall_target": config.recall_target,
            "hit_rate_exact": hit_rate_exact,
            "hit_rate": hit_rate,
            "query_ms": round(single_query_ms(index, queries.judging, exact.k), 3),
            "num_candidates": len(vectors),
            "dimension": vectors.shape[1],
            "num_recall_queries": len(queries.judging),
            "num_tuning_queries": len(queries.tuning),
            "settings": choice.settings,
            "build_s": round(build_s, 3),
            "gate": {
                "passed": all(check.passed for check in checks),
                "checks": [check.to_json() for check in checks],
            },
            "trials": [asdict(trial) for trial in choice.trials],
        }
    )
    settings = ", ".join(f"{name} {value}" for name, value in choice.settings.items())
    about = f"{index.backend} index ({settings}) over {len(queries.judging):,} queries"
    if message := refusal(checks, config, about):
        log.error("refused %s", report)
        raise IndexRefusedError(message, report)
    return report
