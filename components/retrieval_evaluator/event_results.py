"""The rank of each held-out event by each ranker, in memory and as a Parquet file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
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
from components.retrieval_evaluator.rankers import UNRANKED, Ranker

Ints = npt.NDArray[np.int64]

CASES_FILE = "cases.parquet"

# Prefixes of the columns with the ranks by ranker, with `exclude_seen` as configured and reversed.
RANK, RANK_OTHER = "rank_", "rank_other_"
_FEATURE = "feature_"
_INTERNAL = ("query", "target", "num_ranked", "is_available")
# The columns that `RankMetrics` needs, except the ranks.
METRIC_COLUMNS = ("evaluation_query", "query", "target", "weight")
# All others are integers.
_TYPES = {
    **{"query_id": object, "candidate_id": object, "event_type": object, "weight": np.float64},
    **{"in_catalogue": bool, "is_repeat": bool, "is_available": bool},
}


@dataclass(frozen=True)
class EventResults:
    """The results of all held-out events, in the order in which they were ranked.

    Attributes:
        columns: The columns of `cases.parquet` (docs/evaluation.md), the number of the `query` in
            the split, the catalogue index of the `target`, -1 if unknown, the number of candidates
            among which it is ranked (`num_ranked`), 0 if it cannot be ranked, and whether it is in
            the catalogue and available at the query's time (`is_available`); each `[num_events]`.
        lists: Counts of returned candidates by ranker, with `exclude_seen` as configured.
        history_popularity: Mean number of training events of a history's candidates, averaged over
            the evaluation queries whose history has a known candidate; 0 if there are none.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    lists: Mapping[str, ReturnedLists]
    history_popularity: float

    def ranks(self, prefix: str) -> dict[str, Ints]:
        """Return the ranks `[num_events]` by ranker; `prefix` is `RANK` or `RANK_OTHER`."""
        return {ranker: self.columns[prefix + ranker] for ranker in self.lists}

    def features(self) -> dict[str, npt.NDArray[np.object_]]:
        """Return the query features that have slices, by name, `[num_events]`."""
        names = [name for name in self.columns if name.startswith(_FEATURE)]
        return {name.removeprefix(_FEATURE): self.columns[name] for name in names}


def rank_events(
    rankers: Mapping[str, Ranker],
    blocks: Iterable[EvaluationQueries],
    train_counts: Ints,
    config: EvaluationConfig,
) -> EventResults:
    """Rank the catalogue with every ranker for every evaluation query, and collect the results."""
    size, num_rows = len(train_counts), 0
    parts: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    popularity = [np.zeros(0)]
    lists = {name: ReturnedLists(config.ks, size) for name in rankers}
    features = {_FEATURE + name: name for name in config.slices}
    for block in blocks:
        rows, history = block.target_rows, block.listed_history
        known = history >= 0
        seen = block.history_rows[known] * size + history[known]
        lengths = np.bincount(block.history_rows, minlength=len(block))
        is_known = block.targets >= 0
        parts["query"].append(block.queries[rows])
        parts["query_id"].append(block.query_ids[rows])
        parts["evaluation_query"].append(rows + num_rows)
        parts["target"].append(block.targets)
        parts["candidate_id"].append(block.target_ids)
        parts["weight"].append(block.target_weights)
        if block.target_types is not None:
            parts["event_type"].append(block.target_types)
        parts["in_catalogue"].append(is_known)
        parts["history_length"].append(lengths[rows])
        is_repeat = np.isin(rows * size + block.targets, seen) & is_known
        parts["is_repeat"].append(is_repeat)
        seen_rows, seen_candidates = np.divmod(np.unique(seen), size)
        is_seen = block.is_available(seen_rows, seen_candidates)
        num_seen = np.bincount(seen_rows[is_seen], minlength=len(block))
        is_available = is_known & block.is_available(rows, block.targets)
        parts["is_available"].append(is_available)
        is_ranked = is_available & ~(is_repeat & config.exclude_seen)
        num_ranked = block.num_available - num_seen * config.exclude_seen
        parts["num_ranked"].append(num_ranked[rows] * is_ranked)
        for column, name in features.items():
            parts[column].append(block.inputs[name].numpy()[rows])
        popularity.append(_mean_popularity(block, train_counts))
        num_rows += len(block)
        for name, ranker in rankers.items():
            for part, ranking in ranker(block):
                for excluded in (False, True):
                    if excluded:
                        ranking.exclude(part.history_rows, part.listed_history)
                    prefix = RANK if excluded == config.exclude_seen else RANK_OTHER
                    parts[prefix + name].append(ranking.ranks(part.target_rows, part.targets))
                    if prefix == RANK:
                        lists[name].add(*ranking.best(lists[name].longest))
    names = ["query_id", "evaluation_query", "candidate_id", "in_catalogue", "history_length"]
    names += ["is_repeat", "weight", *(["event_type"] if "event_type" in parts else [])]
    names += [*features, *_INTERNAL]
    names += [prefix + ranker for prefix in (RANK, RANK_OTHER) for ranker in rankers]
    types = {**_TYPES, **dict.fromkeys(features, object)}
    columns = {
        name: np.concatenate([np.zeros(0, types.get(name, np.int64)), *parts[name]])
        for name in names
    }
    means = np.concatenate(popularity)
    return EventResults(columns, lists, float(means.mean()) if len(means) else 0.0)


def write_cases(results: EventResults, path: str) -> None:
    """Write one Parquet row per held-out event."""
    columns = {name: of for name, of in results.columns.items() if name not in _INTERNAL}
    table = {}
    for name, values in columns.items():
        if values.dtype == object:  # Ingestion accepts only UTF-8.
            table[name] = pa.array(values, pa.binary()).cast(pa.string())
        else:
            is_rank = name.startswith((RANK, RANK_OTHER))
            table[name] = pa.array(values, mask=values == UNRANKED if is_rank else None)
    with files.open_to_write(path) as file:
        pq.write_table(pa.table(table), file)


def _mean_popularity(block: EvaluationQueries, train_counts: Ints) -> npt.NDArray[np.float64]:
    known = block.listed_history >= 0
    rows = block.history_rows[known]
    sums = np.bincount(rows, weights=train_counts[block.history[known]])
    numbers = np.bincount(rows)
    means: npt.NDArray[np.float64] = sums[numbers > 0] / numbers[numbers > 0]
    return means
