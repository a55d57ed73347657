"""The rank of each held-out event by each ranker, in memory and as a Parquet file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import EvaluationQueries
from components.retrieval_evaluator.metrics import ReturnedLists
from components.retrieval_evaluator.rankers import Ranker
from components.retrieval_evaluator.ranking import UNRANKED

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.object_]

CASES_FILE = "cases.parquet"


@dataclass(frozen=True)
class EventResults:
    """The results of all held-out events, in the order in which they were ranked.

    Attributes:
        evaluation_queries: Number of the event's evaluation query `[num_events]`.
        targets: Index of the held-out candidate, -1 if the catalogue lacks it `[num_events]`.
        is_repeat: Whether the history contains the candidate `[num_events]`.
        is_repeated: Whether the evaluation query has an earlier target with the same candidate
            `[num_events]`.
        ranks: Ranks by ranker, with `exclude_seen` as configured `[num_events]`.
        ranks_other: Ranks by ranker, with the opposite of `exclude_seen` `[num_events]`.
        lists: Counts of returned candidates by ranker, with `exclude_seen` as configured.
        history_popularity: Mean number of training events of a history's candidates, averaged over
            the evaluation queries whose history has a known candidate; 0 if there are none.
    """

    queries: Ints
    query_ids: Ids
    evaluation_queries: Ints
    targets: Ints
    target_ids: Ids
    history_lengths: Ints
    is_repeat: Bools
    is_repeated: Bools
    features: Mapping[str, Ids]
    ranks: Mapping[str, Ints]
    ranks_other: Mapping[str, Ints]
    lists: Mapping[str, ReturnedLists]
    history_popularity: float


def rank_events(
    rankers: Mapping[str, Ranker],
    blocks: Iterable[EvaluationQueries],
    train_counts: Ints,
    config: EvaluationConfig,
) -> EventResults:
    """Rank the catalogue with every ranker for every evaluation query, and collect the results."""
    size = len(train_counts)
    columns: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    features: dict[str, list[Ids]] = {name: [] for name in config.slices}
    ranks: dict[bool, dict[str, list[Ints]]] = {
        excluded: {name: [] for name in rankers} for excluded in (False, True)
    }
    lists = {name: ReturnedLists(config.ks, size) for name in rankers}
    num_rows = 0
    for block in blocks:
        rows, known = block.target_rows, block.history >= 0
        seen = block.history_rows[known] * size + block.history[known]
        columns["queries"].append(block.queries[rows])
        columns["query_ids"].append(block.query_ids[rows])
        columns["evaluation_queries"].append(rows + num_rows)
        columns["targets"].append(block.targets)
        columns["target_ids"].append(block.target_ids)
        lengths = np.bincount(block.history_rows, minlength=len(block))
        columns["history_lengths"].append(lengths[rows])
        is_seen = np.isin(rows * size + block.targets, seen) & (block.targets >= 0)
        columns["is_repeat"].append(is_seen)
        columns["popularity"].append(_mean_popularity(block, train_counts))
        for name, values in features.items():
            values.append(block.inputs[name].numpy()[rows])
        num_rows += len(block)
        for name, ranker in rankers.items():
            for first, last, ranking in ranker(block):
                part = block.part(first, last)
                for excluded in (False, True):
                    if excluded:
                        ranking.exclude(part.history_rows, part.history)
                    ranks[excluded][name].append(ranking.ranks(part.target_rows, part.targets))
                    if excluded == config.exclude_seen:
                        lists[name].add(*ranking.best(lists[name].longest))
    popularity = _joined(columns["popularity"], np.float64)
    evaluation_queries = _joined(columns["evaluation_queries"], np.int64)
    targets = _joined(columns["targets"], np.int64)
    by_exclusion = {
        excluded: {name: _joined(parts, np.int64) for name, parts in by_ranker.items()}
        for excluded, by_ranker in ranks.items()
    }
    return EventResults(
        queries=_joined(columns["queries"], np.int64),
        query_ids=_joined(columns["query_ids"], object),
        evaluation_queries=evaluation_queries,
        targets=targets,
        target_ids=_joined(columns["target_ids"], object),
        history_lengths=_joined(columns["history_lengths"], np.int64),
        is_repeat=_joined(columns["is_repeat"], bool),
        is_repeated=_is_repeated(evaluation_queries, targets),
        features={name: _joined(values, object) for name, values in features.items()},
        ranks=by_exclusion[config.exclude_seen],
        ranks_other=by_exclusion[not config.exclude_seen],
        lists=lists,
        history_popularity=float(popularity.mean()) if len(popularity) else 0.0,
    )


def write_cases(results: EventResults, path: str) -> None:
    """Write one Parquet row per held-out event; the columns are documented in docs/evaluation.md.

    The file is written atomically.
    """
    columns: dict[str, pa.Array] = {
        "query_id": _text(results.query_ids),
        "evaluation_query": pa.array(results.evaluation_queries),
        "candidate_id": _text(results.target_ids),
        "in_catalogue": pa.array(results.targets >= 0),
        "history_length": pa.array(results.history_lengths),
        "is_repeat": pa.array(results.is_repeat),
    }
    for name, values in results.features.items():
        columns[f"feature_{name}"] = _text(values)
    for prefix, ranks in (("rank", results.ranks), ("rank_other", results.ranks_other)):
        for name, rank in ranks.items():
            columns[f"{prefix}_{name}"] = pa.array(rank, mask=rank == UNRANKED)
    with files.open_to_write(path) as file:
        pq.write_table(pa.table(columns), file)


def _text(values: object) -> pa.Array:
    # Ingestion accepts only UTF-8.
    return pa.array(values, pa.binary()).cast(pa.string())


def _mean_popularity(block: EvaluationQueries, train_counts: Ints) -> npt.NDArray[np.float64]:
    known = block.history >= 0
    rows = block.history_rows[known]
    sums = np.bincount(rows, weights=train_counts[block.history[known]])
    numbers = np.bincount(rows)
    means: npt.NDArray[np.float64] = sums[numbers > 0] / numbers[numbers > 0]
    return means


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return (np.concatenate(parts) if parts else np.zeros(0)).astype(dtype)


def _is_repeated(evaluation_queries: Ints, targets: Ints) -> Bools:
    order = np.lexsort((targets, evaluation_queries))
    again = (np.diff(evaluation_queries[order]) == 0) & (np.diff(targets[order]) == 0)
    repeated = np.zeros(len(targets), bool)
    repeated[order[1:]] = again & (targets[order[1:]] >= 0)
    return repeated
