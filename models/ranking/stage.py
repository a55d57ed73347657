"""The ranking stage: from what the retriever found to candidates in the order of the ranker.

Training, evaluation and serving all use this class, so they see the same candidates and features.
"""

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.ranking.declared import join
from models.ranking.features import (
    RankingFeatures,
    Retrieved,
    VectorsAt,
    lower_bound,
    newest_first,
)
from models.ranking.tables import RankingTables
from models.ranking.tasks import Task, TaskFeatures

if TYPE_CHECKING:  # it takes a second to import
    from models.ranking.ranker import Ranker

# The score of a missing candidate.
NO_SCORE = tf.float32.min

# A batch of queries: the transformed ID and features.
Known: TypeAlias = Mapping[str, tf.Tensor]


class Ranked(NamedTuple):
    """Scores of candidates, and what is predicted for each task, all `[batch, n]`."""

    scores: tf.Tensor
    tasks: dict[str, tf.Tensor]


class RankingStage(tf.Module):
    """Ranks candidates for queries.

    Candidates are indices of a catalogue, or of the vocabulary during training.

    Args:
        tables: Tables with the same indices.
        vectors_at: Function that returns the vectors of candidates.
        exclude_seen, successors: See `models.ranking.saved_stage.StageSettings`.
        task_features: The features from estimates of tasks; None without tasks.
        ranker: The trained model; None while it is being trained.
        candidate_vectors: Embeddings of the declared features of the candidates by the ranker
            `[num_candidates, …]`; None if there are none.
    """

    def __init__(
        self,
        tables: RankingTables,
        vectors_at: VectorsAt,
        *,
        exclude_seen: bool,
        successors: int = 0,
        task_features: TaskFeatures | None = None,
        ranker: "Ranker | None" = None,
        candidate_vectors: npt.NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        self.exclude_seen, self._successors = exclude_seen, successors
        self.reads_query = task_features is not None
        self.tasks: tuple[Task, ...] = ()
        self._task_features = task_features
        self._candidate_vectors: list[tf.Variable] = []
        self.features = RankingFeatures(tables, vectors_at, repeats=not exclude_seen)
        self._vectors_at = vectors_at
        if ranker is not None:
            self._add_ranker(ranker, candidate_vectors)

    def with_ranker(
        self, ranker: "Ranker", candidate_vectors: npt.NDArray[np.float32] | None
    ) -> "RankingStage":
        """Return a stage with a trained model and the same tables in memory."""
        stage = copy.copy(self)
        stage._add_ranker(ranker, candidate_vectors)
        return stage

    def _add_ranker(
        self, ranker: "Ranker", candidate_vectors: npt.NDArray[np.float32] | None
    ) -> None:
        # A Keras model must not be an attribute, because it would be saved with its own calls.
        self._weights = ranker.variables
        self._predict: Callable[[tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]] = lambda inputs: (
            ranker.predict(inputs)
        )
        self.tasks = tuple(ranker.tasks)
        self._of_queries: Callable[[Known], list[tf.Tensor]] = lambda known: (
            ranker.of_queries(known) if ranker.of_queries.names else []
        )
        self.reads_query |= bool(ranker.of_queries.names)
        vectors = [] if candidate_vectors is None else [candidate_vectors]
        self._candidate_vectors = [tf.Variable(of, trainable=False) for of in vectors]

    def candidates(
        self, queries: tf.Tensor, recent: tf.Tensor, found: tf.Tensor, scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the candidates to rank and their scores by the retriever, both `[batch, n]`.

        These are the retriever's; behind them, without `exclude_seen`, the history's; and then the
        successors of the newest event, which may be candidates that may not be recommended. Missing
        candidates and repeated ones have the score `NO_SCORE`.

        Args:
            queries: Query vectors `[batch, dimension]`.
            recent: Candidates of the newest events (`newest_first`).
            found: Candidates of the retriever `[batch, m]`.
            scores: Their scores by the retriever, best first.
        """
        others = [] if self.exclude_seen else [recent]
        if self._successors:
            others.append(self.features.successors(recent[:, 0], self._successors))
        if not others:
            return found, scores
        others = tf.concat(others, axis=1)
        own = tf.maximum(others, 0)
        own_scores = tf.linalg.matvec(self._vectors_at(own), queries)
        ascending = tf.sort(tf.where(scores > NO_SCORE, found, -1), axis=1)
        index = tf.minimum(lower_bound(ascending, own), tf.shape(ascending)[1] - 1)
        is_found = tf.gather(ascending, index, batch_dims=1) == own
        is_before = np.tri(own.shape[1], k=-1, dtype=bool)
        is_same = others[:, :, None] == others[:, None, :]
        is_repeated = tf.reduce_any(is_same & is_before, axis=2)
        is_new = (others >= 0) & ~is_found & ~is_repeated
        own_scores = tf.where(is_new, own_scores, NO_SCORE)
        return tf.concat([found, own], axis=1), tf.concat([scores, own_scores], axis=1)

    def order(
        self,
        queries: tf.Tensor,
        history: tf.Tensor,
        found: tf.Tensor,
        scores: tf.Tensor,
        known: Known,
        qualifies: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, Ranked]:
        """Return candidates and their scores by the retriever `[batch, n]` and by the ranker.

        Missing candidates have the scores `NO_SCORE`. The order is that of `candidates`.

        Args:
            queries: Query vectors `[batch, dimension]`.
            history: Candidate indices `[batch, events]`, oldest first; negative if unknown.
            found: Candidates of the retriever `[batch, m]`.
            scores: Their scores by the retriever, best first.
            known: The queries' transformed ID and features; {} if not `reads_query`.
            qualifies: Function that returns a mask of the candidates `[batch, n]` that may be
                recommended; the retriever's must qualify. Default: all.
        """
        recent, length = newest_first(history)
        candidates, retrieval_scores = self.candidates(queries, recent, found, scores)
        if qualifies is not None and (self._successors or not self.exclude_seen):
            retrieval_scores = tf.where(qualifies(candidates), retrieval_scores, NO_SCORE)
        retrieved = Retrieved(recent, length, scores)
        ranked = self.rank(retrieved, candidates, retrieval_scores, known)
        return candidates, retrieval_scores, ranked

    def rank(
        self, retrieved: Retrieved, candidates: tf.Tensor, scores: tf.Tensor, known: Known
    ) -> Ranked:
        """Return the scores of candidates by the ranker.

        `scores` `[batch, n]` are those by the retriever; candidates with `NO_SCORE` keep it.
        `known` is that of `order`.
        """
        features = self.computed(retrieved, candidates, scores, known)
        declared = [tf.gather(of.read_value(), candidates) for of in self._candidate_vectors]
        ranked, outputs = self._predict(join(features, declared, self._of_queries(known)))
        tasks = {}
        for task, of_task in zip(self.tasks, outputs, strict=True):
            tasks[task.name] = tf.where(scores > NO_SCORE, task.served(of_task), NO_SCORE)
            if task.score_weight:
                ranked += task.score_weight * task.standard(of_task)
        return Ranked(tf.where(scores > NO_SCORE, ranked, NO_SCORE), tasks)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the computed features."""
        of_tasks = () if self._task_features is None else self._task_features.names
        return self.features.names + of_tasks

    def computed(
        self, retrieved: Retrieved, candidates: tf.Tensor, scores: tf.Tensor, known: Known
    ) -> tf.Tensor:
        """Return the computed features `[batch, n, len(names)]` of candidates.

        The arguments are those of `rank`.
        """
        features = self.features(retrieved, candidates, scores)
        if self._task_features is None:
            return features
        return tf.concat([features, *self._task_features(known, candidates)], axis=2)
