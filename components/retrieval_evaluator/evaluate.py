"""Measures the exported towers and the baselines on a split, exactly and over everything."""

from collections.abc import Callable, Mapping
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
from components.retrieval_evaluator.questions import QuestionReader, Questions
from components.retrieval_evaluator.ranking import target_ranks
from models.features import FeatureSpec
from models.raw_examples import read_timelines, split_files
from models.saved_towers import SavedTowers

# Scores of one block: 64 million float32 are 256 MB.
_SCORES_IN_A_BLOCK = 64_000_000
_QUESTIONS_IN_A_BLOCK = 512

Scorer = Callable[[Questions], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: Metric by name by contender, seen candidates treated as the config says.
        metrics_other: The same, treated the other way.
        num_queries: Queries that were asked about.
        num_questions: Questions: as many as queries, or as events where the protocol is rolling.
        num_events: Held-out events that were asked about.
        num_left_out: Held-out events that nobody was asked about: their history is too short.
        num_candidates: Size of the catalogue.
        num_unknown_targets: Held-out events whose candidate the catalogue lacks; all are misses.
    """

    metrics: Mapping[str, Mapping[str, float]]
    metrics_other: Mapping[str, Mapping[str, float]]
    num_queries: int
    num_questions: int
    num_events: int
    num_left_out: int
    num_candidates: int
    num_unknown_targets: int


def evaluate(
    towers: SavedTowers, examples_uri: str, spec: FeatureSpec, config: EvaluationConfig
) -> Evaluation:
    """Predicts the held-out events of `config.split` by `config.protocol`.

    Every contender ranks the same full catalogue for the same events, with the history's
    candidates excluded and counted.

    Args:
        towers: Asked with what a client would send.
        examples_uri: Of an Examples artifact with the splits train, candidates and `config.split`.
        spec: Ids and features.
        config: With a protocol that is not `auto` (`EvaluationConfig.for_split`).

    Raises:
        FileNotFoundError: The Examples lack a split.
    """
    if config.protocol == "auto":
        raise ValueError("the protocol depends on the split: use `EvaluationConfig.for_split`")
    ids, vectors = towers.embed_catalogue(split_files(examples_uri, "candidates"))
    index_of = _index(ids)
    popularity = popularity_scores(_train_counts(examples_uri, spec, index_of, len(ids)))
    contenders: dict[str, Scorer] = {
        MODEL: lambda asked: towers.embed_queries(asked.inputs) @ vectors.T,
        POPULARITY: lambda asked: np.repeat(popularity[None, :], len(asked), axis=0),
        REPEAT_HISTORY: lambda asked: repeat_history_scores(
            popularity, asked.history_rows, asked.history, len(asked)
        ),
    }
    ranks: dict[tuple[str, bool], list[npt.NDArray[np.int64]]] = {}
    # Of each held-out event: its query, its question, its candidate.
    queries: list[npt.NDArray[np.int64]] = []
    questions: list[npt.NDArray[np.int64]] = []
    targets: list[npt.NDArray[np.int64]] = []
    num_questions = 0
    nothing = np.zeros(0, np.int64)
    block_size = max(1, min(_QUESTIONS_IN_A_BLOCK, _SCORES_IN_A_BLOCK // max(len(ids), 1)))
    reader = QuestionReader(spec, index_of, config)
    for asked in reader.read(split_files(examples_uri, config.split), block_size):
        queries.append(asked.queries[asked.target_rows])
        questions.append(asked.target_rows + num_questions)
        targets.append(asked.targets)
        num_questions += len(asked)
        for name, scorer in contenders.items():
            scores = scorer(asked)
            for excluded, rows, history in (
                (False, nothing, nothing),
                (True, asked.history_rows, asked.history),
            ):
                # In this order: excluding changes the scores in place.
                ranked = target_ranks(scores, rows, history, asked.target_rows, asked.targets)
                ranks.setdefault((name, excluded), []).append(ranked)
    query, question, target = _joined(queries), _joined(questions), _joined(targets)
    is_repeated = _is_repeated(question, target)
    tables = {
        excluded: {
            name: metrics_at(
                _joined(ranks.get((name, excluded), [])), question, query, config.ks, is_repeated
            )
            for name in contenders
        }
        for excluded in (True, False)
    }
    return Evaluation(
        metrics=tables[config.exclude_seen],
        metrics_other=tables[not config.exclude_seen],
        num_queries=len(np.unique(query)),
        num_questions=num_questions,
        num_events=len(query),
        num_left_out=reader.num_left_out,
        num_candidates=len(ids),
        num_unknown_targets=int(np.count_nonzero(target < 0)),
    )


def _is_repeated(
    questions: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Marks all but the first of a question's targets of one candidate; unknown ones are apart."""
    order = np.lexsort((targets, questions))
    again = (np.diff(questions[order]) == 0) & (np.diff(targets[order]) == 0)
    repeated = np.zeros(len(questions), bool)
    repeated[order[1:]] = again & (targets[order[1:]] >= 0)
    return repeated


def _index(ids: npt.NDArray[np.object_]) -> tf.lookup.StaticHashTable:
    keys = tf.constant(ids.tolist(), tf.string)
    positions = tf.range(len(ids), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, positions), -1)


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
