"""The served signatures of a model with a ranking stage: retrieve, then rank."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.restricted_search import (
    Condition,
    qualifying,
    restricted_search,
)
from components.index_builder.search_index import SearchIndex, sorted_exclusions
from components.index_builder.served_signatures import (
    CANDIDATE_IDS_KEY,
    SCORES_KEY,
    RetrievalModel,
)
from models.features.spec import HISTORY_KEY
from models.input.raw_inputs import query_inputs, same_batch
from models.ranking.features import Retrieved, newest_first
from models.ranking.stage import NO_SCORE, Known, RankingStage
from models.towers.export import EMBED_QUERY, EMBEDDING_KEY
from models.towers.saved_towers import SavedTowers

RETRIEVE = "retrieve"
RANK = "rank"
RETRIEVAL_SCORES_KEY = "retrieval_scores"
# An index finds one more candidate for each exclusion. With more, an approximate one also finds
# better ones, which changes ranks. With the same number for any shorter history, an answer does not
# depend on the other requests in its batch, to whose length its history is padded.
_FEWEST_EXCLUSIONS = 1000


class RankedRetrievalModel(RetrievalModel):
    """A retrieval model whose best candidates are ordered by a ranking stage.

    `recommend` and `recommend_excluding` return the scores of the ranker, those of the retriever as
    `retrieval_scores`, and the predictions of each task under its name. If the ranker was trained
    to exclude seen candidates, they never return candidates of the history. `retrieve` is the
    retriever alone.

    Args:
        stage: The ranking stage, with the candidate indices of `index`.
        num_ranked: Number of candidates that the index finds for the ranker.
        orders: Whether the ranker orders the candidates. If not, its scores are replaced by those
            of the retriever.
        arguments: Those of `RetrievalModel`.
    """

    def __init__(
        self,
        stage: RankingStage,
        num_ranked: int,
        towers: SavedTowers,
        index: SearchIndex,
        *,
        orders: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(towers=towers, index=index, **arguments)
        self._stage, self._orders = stage, orders
        self._transform_queries = towers.transform_queries
        self._num_ranked = min(max(self._k, num_ranked), index.num_candidates)

    def recommend(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the best candidates for raw queries (`models.input.raw_inputs.query_inputs`)."""
        rows = same_batch(inputs)
        return self._ranked_answer(rows, None, self._conditions(rows))

    def recommend_excluding(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the best candidates that are not excluded and pass the filters.

        The inputs are those of `RetrievalModel.recommend_excluding`.
        """
        rows = same_batch(inputs)
        excluded = self._exclusions(rows)
        return self._ranked_answer(rows, excluded, self._conditions(rows))

    def answers(
        self, batches: Iterable[Mapping[str, tf.Tensor]], index: SearchIndex | None = None
    ) -> npt.NDArray[np.object_]:
        """Return the candidate IDs `[num_queries, k]` for raw queries, with this or another index.

        The queries are in batches of `models.input.raw_inputs.query_inputs`.
        """
        own = self._index
        try:
            self._index = index or own
            traced = tf.function(self.recommend, autograph=False)
            answer = traced.get_concrete_function(**query_inputs(self._spec))
        finally:
            self._index = own
        found = [answer(**batch)[CANDIDATE_IDS_KEY].numpy() for batch in batches]
        return np.concatenate(found)

    def rank(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the scores and the predictions of tasks for `candidate_ids`, all `[batch, m]`.

        Candidates that `recommend` returns have the same ones there. Those of candidates that are
        unknown or not available, and of "", are the lowest finite float32.
        """
        rows = same_batch(inputs)
        given = self._index_of.lookup(rows.pop(CANDIDATE_IDS_KEY))
        # The features need at least one candidate, so an unknown one is added.
        given = tf.pad(given, [[0, 0], [0, 1]], constant_values=-1)
        conditions = self._conditions(rows)
        queries, history, _, top_scores, _ = self._find(rows, None, conditions)
        candidates = tf.maximum(given, 0)
        for condition, allowed in conditions:
            given = tf.where(condition.passes(allowed, candidates), given, -1)
        scores = tf.linalg.matvec(self._index.vectors_at(candidates), queries)
        scores = tf.where(given >= 0, scores, NO_SCORE)
        retrieved = Retrieved(*newest_first(history), top_scores)
        ranked = self._stage.rank(retrieved, candidates, scores, self._known(rows))
        best = ranked.scores if self._orders else scores
        outputs = {SCORES_KEY: best, RETRIEVAL_SCORES_KEY: scores, **ranked.tasks}
        return {name: values[:, :-1] for name, values in outputs.items()}

    def _functions(self) -> dict[str, Any]:
        functions: dict[str, Any] = super()._functions()
        query = query_inputs(self._spec)
        given = {CANDIDATE_IDS_KEY: tf.TensorSpec([None, None], tf.string, CANDIDATE_IDS_KEY)}
        functions[RETRIEVE] = (super().recommend, query)
        functions[RANK] = (self.rank, {**query, **given})
        return functions

    def _known(self, rows: dict[str, tf.Tensor]) -> Known:
        return self._transform_queries(rows) if self._stage.reads_query else {}

    def _find(
        self, rows: dict[str, tf.Tensor], excluded: tf.Tensor | None, conditions: list[Condition]
    ) -> tuple[Any, ...]:
        """Return query vectors, histories, the retriever's candidates and scores, and exclusions.

        Candidates are indices, also the exclusions `[batch, m]`: those of `excluded` and of the
        stage, or None if there are none.
        """
        queries = self._towers.signatures[EMBED_QUERY](**rows)[EMBEDDING_KEY]
        history = self._index_of.lookup(rows[HISTORY_KEY])
        parts = [] if excluded is None else [excluded]
        if self._stage.exclude_seen:
            parts.append(history)
        if not (parts or conditions):
            # A single request spends its time on the number of operations.
            found = self._index.search(queries, tf.constant(self._num_ranked))
            return queries, history, *found, None
        hidden = tf.concat(parts, axis=1) if parts else history[:, :0]
        if self._stage.exclude_seen:
            missing = tf.maximum(_FEWEST_EXCLUSIONS - tf.shape(hidden)[1], 0)
            hidden = tf.pad(hidden, [[0, 0], [0, missing]], constant_values=-1)
        found = restricted_search(self._index, queries, self._num_ranked, hidden, conditions)
        return queries, history, *found, hidden

    def _ranked_answer(
        self, rows: dict[str, tf.Tensor], excluded: tf.Tensor | None, conditions: list[Condition]
    ) -> dict[str, tf.Tensor]:
        queries, history, found, top_scores, hidden = self._find(rows, excluded, conditions)
        qualifies = None
        if hidden is not None:
            ascending = sorted_exclusions(hidden)
            qualifies = partial(qualifying, excluded=ascending, conditions=conditions)
        candidates, retrieval_scores, ranked = self._stage.order(
            queries, history, found, top_scores, self._known(rows), qualifies
        )
        scores = ranked.scores if self._orders else retrieval_scores
        best, order = tf.math.top_k(scores, self._k)
        answer = self._answer(tf.gather(candidates, order, batch_dims=1), best)
        for name, values in {RETRIEVAL_SCORES_KEY: retrieval_scores, **ranked.tasks}.items():
            values = tf.gather(values, order, batch_dims=1)
            answer[name] = tf.ensure_shape(values, [None, self._k])
        return answer
