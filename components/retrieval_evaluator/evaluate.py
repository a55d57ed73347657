"""Measures the exported towers and the baselines on a split, exactly and over everything."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.retrieval_evaluator.baselines import (
    POPULARITY,
    REPEAT_HISTORY,
    popularity_scores,
    repeat_history_scores,
)
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.gate import MODEL
from components.retrieval_evaluator.metrics import metrics_at
from components.retrieval_evaluator.ranking import target_ranks
from models.features import FeatureSpec
from models.raw_examples import RawTimelines, read_timelines, split_files
from models.saved_towers import SavedTowers

# Scores of one block: 64 million float32 are 256 MB.
_SCORES_IN_A_BLOCK = 64_000_000
_QUERIES_IN_A_BLOCK = 512

Scorer = Callable[["_Block"], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: Metric by name by contender, seen candidates treated as the config says.
        metrics_other: The same, treated the other way.
        num_queries: Queries with held-out events.
        num_events: Held-out events.
        num_candidates: Size of the catalogue.
        num_unknown_targets: Held-out events whose candidate the catalogue lacks; all are misses.
    """

    metrics: Mapping[str, Mapping[str, float]]
    metrics_other: Mapping[str, Mapping[str, float]]
    num_queries: int
    num_events: int
    num_candidates: int
    num_unknown_targets: int


@dataclass(frozen=True)
class _Block:
    """A batch of timelines with candidates as indices; -1 is unknown."""

    timelines: RawTimelines
    num_queries: int
    history_rows: npt.NDArray[np.int64]
    history: npt.NDArray[np.int64]
    target_rows: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


def evaluate(
    towers: SavedTowers, examples_uri: str, spec: FeatureSpec, config: EvaluationConfig
) -> Evaluation:
    """Predicts the held-out events of `config.split` from each query's history.

    Every contender ranks the same full catalogue for the same events, with the history's
    candidates excluded and counted.
    """
    ids, vectors = towers.embed_catalogue(split_files(examples_uri, "candidates"))
    index_of = _index(ids)
    popularity = popularity_scores(_train_counts(examples_uri, spec, index_of, len(ids)))
    contenders: dict[str, Scorer] = {
        MODEL: lambda block: towers.embed_queries(block.timelines.inputs) @ vectors.T,
        POPULARITY: lambda block: np.repeat(popularity[None, :], block.num_queries, axis=0),
        REPEAT_HISTORY: lambda block: repeat_history_scores(
            popularity, block.history_rows, block.history, block.num_queries
        ),
    }
    ranks: dict[tuple[str, bool], list[npt.NDArray[np.int64]]] = {}
    queries: list[npt.NDArray[np.int64]] = []
    num_queries = num_unknown = 0
    block_size = max(1, min(_QUERIES_IN_A_BLOCK, _SCORES_IN_A_BLOCK // max(len(ids), 1)))
    for block in _blocks(examples_uri, config.split, spec, index_of, block_size):
        queries.append(block.target_rows + num_queries)
        num_queries += block.num_queries
        num_unknown += int(np.count_nonzero(block.targets < 0))
        nothing = np.zeros(0, np.int64)
        for name, scorer in contenders.items():
            scores = scorer(block)
            for excluded, rows, history in (
                (False, nothing, nothing),
                (True, block.history_rows, block.history),
            ):
                # In this order: excluding changes the scores in place.
                ranked = target_ranks(scores, rows, history, block.target_rows, block.targets)
                ranks.setdefault((name, excluded), []).append(ranked)
    events = np.concatenate(queries) if queries else np.zeros(0, np.int64)
    tables = {
        excluded: {
            name: metrics_at(_joined(ranks.get((name, excluded), [])), events, config.ks)
            for name in contenders
        }
        for excluded in (True, False)
    }
    return Evaluation(
        metrics=tables[config.exclude_seen],
        metrics_other=tables[not config.exclude_seen],
        num_queries=len(np.unique(events)),
        num_events=len(events),
        num_candidates=len(ids),
        num_unknown_targets=num_unknown,
    )


def _index(ids: npt.NDArray[np.object_]) -> tf.lookup.StaticHashTable:
    keys = tf.constant(ids.tolist(), tf.string)
    positions = tf.range(len(ids), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, positions), -1)


def _blocks(
    examples_uri: str,
    split: str,
    spec: FeatureSpec,
    index_of: tf.lookup.StaticHashTable,
    block_size: int,
) -> Iterator[_Block]:
    for timelines in read_timelines(split_files(examples_uri, split), spec, block_size):
        yield _Block(
            timelines=timelines,
            num_queries=int(timelines.history.nrows()),
            history_rows=timelines.history.value_rowids().numpy(),
            history=index_of.lookup(timelines.history.values).numpy(),
            target_rows=timelines.targets.value_rowids().numpy(),
            targets=index_of.lookup(timelines.targets.values).numpy(),
        )


def _train_counts(
    examples_uri: str,
    spec: FeatureSpec,
    index_of: tf.lookup.StaticHashTable,
    num_candidates: int,
) -> npt.NDArray[np.int64]:
    counts = np.zeros(num_candidates + 1, np.int64)
    for timelines in read_timelines(split_files(examples_uri, "train"), spec, 4096):
        # -1, not in the catalogue, counts in the last place, which is dropped.
        indices = index_of.lookup(timelines.history.values).numpy()
        counts += np.bincount(indices % (num_candidates + 1), minlength=num_candidates + 1)
    return counts[:-1]


def _joined(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
