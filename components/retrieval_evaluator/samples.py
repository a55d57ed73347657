"""Samples for people to look at: example queries with their recommendations, and items."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.candidate_embedder.embedding_files import to_table
from components.retrieval_evaluator.evaluation_queries import EvaluationQueries
from components.retrieval_evaluator.event_results import RANK, EventResults
from components.retrieval_evaluator.rankers import MODEL, UNRANKED, Ranker
from models.features.spec import HISTORY_KEY, FeatureSpec
from models.input.raw_examples import read_candidates

EXAMPLES_FILE, ITEMS_FILE = "examples.json", "items.parquet"

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.object_]

_PER_KIND = 4
_NUM_RECOMMENDED = 10
_NUM_SHOWN = 10  # of the newest events of a history, and of the held-out events
_NUM_ITEMS = 500
_BATCH = 4096
_SEED = 42


@dataclass(frozen=True)
class Samples:
    """Example queries, and the items in them together with the most popular items.

    Attributes:
        queries: For each example, its `kind` (best, worst, random), query ID, features, the newest
            events of the history, held-out events with their ranks, and the served list.
        items: The items in the format of CandidateEmbedder; the most popular ones first.
        num_popular: Number of items that were chosen because they are popular.
    """

    queries: Sequence[Mapping[str, Any]]
    items: pa.Table
    num_popular: int

    def write(self, directory: str) -> None:
        """Write `examples.json` and `items.parquet`."""
        content = {"queries": self.queries, "num_popular": self.num_popular}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        files.write_text(os.path.join(directory, EXAMPLES_FILE), text)
        with files.open_to_write(os.path.join(directory, ITEMS_FILE)) as file:
            pq.write_table(self.items, file)


def take_samples(
    results: EventResults,
    ranker: Ranker,
    blocks: Iterable[EvaluationQueries],
    catalogue: Sequence[str],
    spec: FeatureSpec,
    ids: Ids,
    vectors: npt.NDArray[np.float32],
    train_counts: Ints,
    *,
    exclude_seen: bool,
) -> Samples:
    """Choose queries that the served list answers best, worst and at random, and rank for them.

    Args:
        results: The ranks of all events.
        ranker: The ranker whose list is served.
        blocks: The evaluation queries of `results`, from the start.
        catalogue: Files of the catalogue.
        spec: The IDs and features.
        ids: IDs of the candidates as bytes `[num_candidates]`.
        vectors: Vectors of the candidates `[num_candidates, dimension]`.
        train_counts: Number of training events of each candidate `[num_candidates]`.
        exclude_seen: Whether the served list excludes the history's candidates.
    """
    kinds = choose_queries(results)
    popular = np.argsort(-train_counts, kind="stable")[:_NUM_ITEMS]
    order = dict.fromkeys(popular.tolist())
    examples = []
    for row, query in _single_rows(blocks, kinds):
        ((part, ranking),) = ranker(query)
        if exclude_seen:
            ranking.exclude(part.history_rows, part.listed_history)
        positions, candidates = ranking.best(_NUM_RECOMMENDED)
        best = candidates[np.argsort(positions)]
        is_mine = results.columns["evaluation_query"] == row
        ranks = results.columns[RANK + MODEL][is_mine]
        shown = np.argsort(ranks, kind="stable")[:_NUM_SHOWN]
        items = best, query.listed_history[-_NUM_SHOWN:], query.targets[shown]
        order |= dict.fromkeys(np.concatenate(items).tolist())
        history = query.inputs[HISTORY_KEY].numpy()[0]
        history = history[history != b""]
        examples.append(
            {
                "kind": kinds[row],
                "query_id": _text(query.query_ids[0]),
                "features": {n: _value(query.inputs[n].numpy()[0]) for n in spec.query_features},
                "history_length": len(history),
                "history": [_text(name) for name in history[-_NUM_SHOWN:]],
                "num_held_out": len(ranks),
                "held_out": [
                    {
                        "id": _text(query.target_ids[index]),
                        "rank": int(ranks[index]) if ranks[index] < UNRANKED else None,
                    }
                    for index in shown
                ],
                "recommended": [_text(name) for name in ids[best]],
            }
        )
    examples.sort(key=lambda example: ("best", "worst", "random").index(str(example["kind"])))
    order.pop(-1, None)
    wanted = np.array(list(order), np.int64)
    return Samples(examples, _items(catalogue, spec, wanted, vectors), len(popular))


def choose_queries(results: EventResults) -> dict[int, str]:
    """Return the kind of example by number of the evaluation query, of different query IDs.

    The best queries are those with the largest mean of 1/log₂(1 + rank) over the held-out events
    that can be ranked; of equal ones, those with the longest history.
    """
    columns = results.columns
    is_ranked = columns["num_ranked"] > 0
    rows, first, nth = np.unique(
        columns["evaluation_query"][is_ranked], return_index=True, return_inverse=True
    )
    gains = 1.0 / np.log2(1.0 + columns[RANK + MODEL][is_ranked].astype(np.float64))
    quality = np.bincount(nth, gains) / np.bincount(nth)
    length, query_ids = (columns[name][is_ranked][first] for name in ("history_length", "query_id"))
    orders = {
        "best": np.lexsort((-length, -quality)),
        "worst": np.lexsort((-length, quality)),
        "random": np.random.default_rng(_SEED).permutation(len(rows)),
    }
    chosen: dict[int, str] = {}
    taken: set[Any] = set()
    for kind, order in orders.items():
        number = 0
        for index in order.tolist():
            if number == _PER_KIND:
                break
            if query_ids[index] not in taken:
                taken.add(query_ids[index])
                chosen[int(rows[index])] = kind
                number += 1
    return chosen


def _single_rows(
    blocks: Iterable[EvaluationQueries], wanted: Iterable[int]
) -> Iterator[tuple[int, EvaluationQueries]]:
    """Yield the wanted evaluation queries, each as a block of its own."""
    left, first = sorted(wanted), 0
    for block in blocks:
        while left and left[0] < first + len(block):
            row = left.pop(0)
            index = row - first
            inputs = {name: values[index : index + 1] for name, values in block.inputs.items()}
            yield row, replace(block.part(index, index + 1), inputs=inputs)
        if not left:
            return
        first += len(block)


def _items(
    catalogue: Sequence[str], spec: FeatureSpec, wanted: Ints, vectors: npt.NDArray[np.float32]
) -> pa.Table:
    """Read the fields of some candidates, in the order of `wanted`."""
    first, parts, found = 0, [], []
    ascending = np.sort(wanted)
    for inputs in read_candidates(catalogue, spec, _BATCH):
        last = first + int(inputs[spec.candidate_id].shape[0])
        mine = ascending[slice(*np.searchsorted(ascending, (first, last)))]
        raw = {name: values.numpy()[mine - first] for name, values in inputs.items()}
        parts.append(to_table(spec, raw, vectors[mine]))
        found.append(mine)
        first = last
    # The order of `wanted`, from that of the catalogue.
    return pa.concat_tables(parts).take(np.searchsorted(np.concatenate(found), wanted))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _value(value: Any) -> Any:
    """Return a raw input as JSON: text, a number, a list of text, or None if it is missing."""
    if isinstance(value, bytes):
        return _text(value) or None
    if isinstance(value, np.ndarray):
        return [_text(item) for item in value.tolist() if item != b""]
    return round(float(value), 6) if np.isfinite(value) else None
