"""Rankings of a model with a ranking stage: the retriever's, with its best candidates ranked again.

The candidates that are ranked are those that the served model ranks, so evaluation and serving
give the same order.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.retrieval_evaluator.bootstrap import Comparison, PairedBootstrap
from components.retrieval_evaluator.config import MAX_CHANCE, EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import EvaluationQueries
from components.retrieval_evaluator.event_results import (
    METRIC_COLUMNS,
    RANK,
    RANK_OTHER,
    EventResults,
)
from components.retrieval_evaluator.metrics import RankMetrics
from components.retrieval_evaluator.rankers import (
    MODEL,
    DenseRanking,
    Ints,
    Ranked,
    Ranker,
    Scores,
    parts,
    towers_ranker,
)
from components.retrieval_evaluator.task_quality import TaskQuality
from models.features.spec import FeatureSpec
from models.ranking.features import Retrieved, newest_first
from models.ranking.saved_stage import load_stage, read_settings
from models.ranking.stage import NO_SCORE, Known, RankingStage
from models.towers.saved_towers import SavedTowers

# The two lists of a model with a ranking stage. The one that is served is called `MODEL` instead.
RANKED, RETRIEVED = "ranked", "retrieved"

_QUERIES_PER_BATCH = 256


@dataclass(frozen=True)
class RankingResult:
    """The comparison of the ranked list with the retrieved one.

    Attributes:
        served: Whether the ranked list is better with statistical confidence, and is served.
        comparison: The ranked list compared with the retrieved one.
        num_candidates: Number of candidates that the retriever gives to the ranker.
        recall: Share of the held-out events whose candidate is among them.
        tasks: Quality of each task.
    """

    served: bool
    comparison: Comparison
    num_candidates: int
    recall: float
    tasks: Mapping[str, TaskQuality] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """Towers, the vectors of the catalogue, and the ranking stage, if there is one.

    `num_candidates` is the number of candidates that the retriever gives to the ranker.
    """

    towers: SavedTowers
    vectors: Scores
    stage: RankingStage | None = None
    num_candidates: int = 0

    @classmethod
    def load(
        cls,
        towers: SavedTowers,
        spec: FeatureSpec,
        ids: npt.NDArray[np.object_],
        vectors: Scores,
        catalogue: Iterable[Mapping[str, tf.Tensor]],
    ) -> "Model":
        """Return a model with its ranking stage for a catalogue, whose raw inputs are given."""
        settings = read_settings(towers.directory)
        if settings is None:
            return cls(towers, vectors)
        table = tf.constant(vectors)
        stage = load_stage(
            towers, spec, ids.tolist(), catalogue, lambda index: tf.gather(table, index)
        )
        return cls(towers, vectors, stage, min(settings.num_candidates, len(ids)))

    def rankers(self) -> dict[str, Ranker]:
        """Return the rankers of a model by name: `MODEL`, or `RANKED` and `RETRIEVED`."""
        retriever = towers_ranker(self.towers, self.vectors)
        if self.stage is None:
            return {MODEL: retriever}
        ranked = two_stage_ranker(self.towers, self.vectors, self.stage, self.num_candidates)
        return {RANKED: ranked, RETRIEVED: retriever}

    def predict_tasks(self, queries: EvaluationQueries) -> dict[str, Scores]:
        """Return what the ranking stage predicts for each target of a block, NaN if unknown."""
        if self.stage is None:
            return {}
        stage, found = self.stage, defaultdict(list)
        embeddings = self.towers.embed_queries(queries.inputs)
        known = self.towers.transform_queries(queries.inputs)
        for first, last, part in parts(queries, len(self.vectors)):
            scores = embeddings[first:last] @ self.vectors.T
            rows, targets = part.target_rows, np.maximum(part.targets, 0)
            own = tf.constant(scores[rows, targets])[:, None]
            part.hide_unavailable(scores)
            scores = np.maximum(scores, NO_SCORE)
            if stage.exclude_seen:
                is_listed = part.listed_history >= 0
                scores[part.history_rows[is_listed], part.history[is_listed]] = NO_SCORE
            top_scores, _ = tf.math.top_k(scores, self.num_candidates)
            recent, length = newest_first(tf.constant(_padded(part, 0, len(part))))
            retrieved = Retrieved(*(tf.gather(of, rows) for of in (recent, length, top_scores)))
            candidates = tf.constant(targets[:, None], tf.int32)
            mine = {name: tf.gather(values[first:last], rows) for name, values in known.items()}
            for name, of in stage.rank(retrieved, candidates, own, mine).tasks.items():
                found[name].append(np.where(part.targets >= 0, of[:, 0], np.nan))
        return {name: np.concatenate(values) for name, values in found.items()}


def two_stage_ranker(
    towers: SavedTowers, vectors: Scores, stage: RankingStage, num_candidates: int
) -> Ranker:
    """Return a ranker that ranks the retriever's best candidates again."""

    @tf.function(reduce_retracing=True, autograph=False)
    def order(
        queries: tf.Tensor, history: tf.Tensor, scores: tf.Tensor, known: Known
    ) -> tuple[tf.Tensor, ...]:
        top_scores, top = tf.math.top_k(tf.maximum(scores, NO_SCORE), num_candidates)
        candidates, _, ranked = stage.order(
            queries,
            history,
            top,
            top_scores,
            known,
            lambda found: tf.gather(scores, found, batch_dims=1) > NO_SCORE,
        )
        return candidates, ranked.scores

    def rank(queries: EvaluationQueries) -> Ranked:
        embeddings = towers.embed_queries(queries.inputs)
        known = towers.transform_queries(queries.inputs) if stage.reads_query else {}
        for first, last, part in parts(queries, len(vectors)):
            mine = embeddings[first:last]
            mine_known = {name: values[first:last] for name, values in known.items()}
            scores = mine @ vectors.T
            part.hide_unavailable(scores)
            ranking = TwoStageRanking(order, mine, mine_known, part, scores)
            if stage.exclude_seen:
                ranking.exclude(part.history_rows, part.listed_history)
            yield part, ranking

    return rank


class TwoStageRanking:
    """Ranking by scores of the retriever `[num_rows, num_candidates]`, and of `order` for the best.

    Excluded candidates are not ranked; others take their place among the retriever's best.
    """

    def __init__(
        self,
        order: Any,
        queries: Scores,
        known: Known,
        part: EvaluationQueries,
        retrieval_scores: Scores,
    ) -> None:
        self._order, self._queries, self._known, self._part = order, queries, known, part
        self._retrieval_scores = retrieval_scores
        self._ranking: DenseRanking | None = None

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Remove candidates (`Ranking.exclude`)."""
        cells = rows[candidates >= 0], candidates[candidates >= 0]
        if np.isfinite(self._retrieval_scores[cells]).any():
            self._retrieval_scores[cells] = -np.inf
            self._ranking = None

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Return the rank of each target (`Ranking.ranks`)."""
        return self._ranked().ranks(target_rows, targets)

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Return the k best of each row (`Ranking.best`)."""
        return self._ranked().best(k)

    def _ranked(self) -> DenseRanking:
        if self._ranking is None:
            scores = self._retrieval_scores.copy()
            for first in range(0, len(scores), _QUERIES_PER_BATCH):
                rows = slice(first, first + _QUERIES_PER_BATCH)
                history = _padded(self._part, first, first + _QUERIES_PER_BATCH)
                known = {name: values[rows] for name, values in self._known.items()}
                candidates, ranked = self._order(
                    *map(tf.constant, (self._queries[rows], history, scores[rows])), known
                )
                _put_on_top(scores[rows], candidates.numpy(), ranked.numpy())
            self._ranking = DenseRanking(scores)
        return self._ranking


def _padded(part: EvaluationQueries, first: int, last: int) -> npt.NDArray[np.int32]:
    """Return the histories of some rows `[num_rows, events]`, with -1 at the end."""
    events = slice(*np.searchsorted(part.history_rows, (first, last)))
    rows = part.history_rows[events] - first
    lengths = np.bincount(rows, minlength=min(last, len(part)) - first)
    padded = np.full((len(lengths), max(1, lengths.max(initial=0))), -1, np.int32)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    padded[rows, nth] = part.listed_history[events]
    return padded


def _put_on_top(scores: Scores, candidates: Ints, ranked: Scores) -> None:
    """Give the ranked candidates scores above all others, in their order; equal ones stay equal."""
    rows, columns = np.nonzero(ranked > NO_SCORE)
    # Numbers from 1, because the difference of two scores may be less than float32 can represent
    # next to the largest score of the retriever.
    order = np.lexsort((ranked[rows, columns], rows))
    values = ranked[rows, columns][order]
    is_new = np.append(True, (np.diff(values) != 0) | (np.diff(rows[order]) != 0))
    numbers = np.empty(len(rows), np.int64)
    numbers[order] = np.cumsum(is_new)[: len(values)]  # there may be none
    starts = np.full(len(scores), np.iinfo(np.int64).max)
    np.minimum.at(starts, rows, numbers)
    top = scores.max(axis=1, initial=0.0)
    scores[rows, candidates[rows, columns]] = top[rows] + numbers - starts[rows] + 1.0


def choose_served(
    results: EventResults,
    metric: str,
    chance: float,
    config: EvaluationConfig,
    towers: SavedTowers,
) -> tuple[EventResults, RankingResult]:
    """Call the ranked list `MODEL` if it is better than the retrieved one, else the retrieved one.

    The difference in `metric`, whose chance level is `chance`, must be above 0 with statistical
    confidence. The retrieved list stays if the gate could not compare models either.
    """
    columns = results.columns
    events = [columns[name] for name in METRIC_COLUMNS]
    parts_of = {
        name: RankMetrics(results.ranks(RANK)[name], *events).per_query(metric)
        for name in (RANKED, RETRIEVED)
    }
    bootstrap = PairedBootstrap(
        {name: sums for name, (sums, _) in parts_of.items()},
        parts_of[RANKED][1],
        config.resamples,
        config.confidence,
    )
    difference = bootstrap.difference(RANKED, RETRIEVED, 1.0)
    comparison = Comparison(metric, RETRIEVED, 1.0, difference)
    settings = read_settings(towers.directory)
    num_candidates = settings.num_candidates if settings else 0
    found = columns[RANK + RETRIEVED] <= num_candidates
    recall = float(found.mean()) if len(found) else float("nan")
    can_tell = len(np.unique(events[1])) >= config.min_queries and chance < MAX_CHANCE
    result = RankingResult(can_tell and difference.low > 0.0, comparison, num_candidates, recall)
    served = RANKED if result.served else RETRIEVED
    names = {prefix + served: prefix + MODEL for prefix in (RANK, RANK_OTHER)}
    lists: Mapping[str, Any] = {
        MODEL if name == served else name: of for name, of in results.lists.items()
    }
    renamed = {names.get(name, name): of for name, of in columns.items()}
    return replace(results, columns=renamed, lists=lists), result
