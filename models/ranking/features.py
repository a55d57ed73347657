"""The features of the ranking stage, computed in TensorFlow for training and serving alike.

A query is known by its vector and its history; a candidate by its vector and the tables. Vectors
enter only through dot products: those of two trainings are not comparable, but their products are
(measured: raw vectors lowered ndcg@20 on validation data from .323 to .289).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from models.ranking.tables import RankingTables

# The newest known events of the history that are looked at.
NUM_RECENT = 50
_NUM_NEWEST = 10
_LAGS = 5
_DECAY = 4.0
_ROUNDING = 1e-5
# Weights of the rules from the newest events in the features `rules_1` to `rules_3` and `rules`.
_RULES = np.concatenate(
    [np.eye(_NUM_NEWEST, 3), np.exp(-np.arange(_NUM_NEWEST) / _DECAY)[:, None]], axis=1
).astype(np.float32)

# Returns the vectors `[…, dimension]` of candidate indices `[…]`.
VectorsAt = Callable[[tf.Tensor], tf.Tensor]

# The description of each feature by name, in the order of the features.
FEATURES = {
    "score": "score of the retriever",
    "rank": "log of the candidate's rank among those that the retriever found",
    "margin": "score of the retriever less that of its best candidate",
    "popularity": "log of the candidate's number of events",
    "recent": "log of its number of recent events, scaled to all events",
    "trend": "recent less popularity",
    "age": "share of all events that are newer than its first event",
    "idle": "share of all events that are newer than its last event",
    "rules_1": "sequential rule from the newest event to the candidate",
    "rules_2": "sequential rule from the event before",
    "rules_3": "sequential rule from the third newest event",
    "rules": "sequential rules from the newest ten events, newer ones counting more",
    "cooccurrence_max": "largest co-occurrence (cosine) with one of the newest ten events",
    "cooccurrence": "mean co-occurrence with the newest ten events",
    "similarity_last": "cosine of the vectors of the candidate and of the newest event",
    "similarity_max": "largest of these cosines over the newest ten events",
    "similarity": "mean of these cosines over the newest ten events",
    "length": "log of the number of known events in the history",
    "distinct": "share of different candidates in the newest 50 events",
}
# Only if candidates of the history can be recommended.
REPEAT_FEATURES = {
    **{
        f"position_{lag}": f"1 if the candidate's newest event is number {lag} of the history, "
        "counted from the newest"
        for lag in range(1, _LAGS + 1)
    },
    "position": "reciprocal of that number; 0 if the candidate is not in the newest 50 events",
    "second_place": "reciprocal of the number of the candidate's event before that; 0 without one",
    "times": "log of the candidate's number of events in the newest 50",
    "share": "share of the newest 50 events that are the candidate's",
}


def feature_names(*, repeats: bool) -> tuple[str, ...]:
    """Return the names of the features; `repeats` is whether the history's candidates qualify."""
    return (*FEATURES, *(REPEAT_FEATURES if repeats else ()))


class Retrieved(NamedTuple):
    """The queries of a batch, and what the retriever found for each.

    Attributes:
        recent: Candidates of the newest known events (`newest_first`) `[batch, NUM_RECENT]`.
        length: Number of known events of the history `[batch]`.
        top_scores: Scores of the retriever's candidates, best first; missing ones have the lowest
            float32 `[batch, num_candidates]`.
    """

    recent: tf.Tensor
    length: tf.Tensor
    top_scores: tf.Tensor


class RankingFeatures(tf.Module):
    """Computes the features of candidates, from tables with the same candidate indices.

    Example:
        features = RankingFeatures(tables, partial(tf.gather, vectors), repeats=True)
        recent, length = newest_first(history)
        x = features(Retrieved(recent, length, top_scores), candidates, scores)
    """

    def __init__(self, tables: RankingTables, vectors_at: VectorsAt, *, repeats: bool) -> None:
        super().__init__()
        self.names = feature_names(repeats=repeats)
        self._repeats = repeats
        self._vectors_at = vectors_at
        trend = tables.recent - tables.popularity
        columns = [tables.popularity, tables.recent, trend, tables.age, tables.idle]
        self._columns = tf.Variable(np.stack(columns, axis=1), trainable=False)
        neighbours = [tables.successors, tables.similar]
        self._neighbours = [tf.Variable(of, trainable=False) for of in neighbours]
        values = [tables.successor_values, tables.similar_values]
        self._values = [tf.Variable(of, trainable=False) for of in values]

    def __call__(self, retrieved: Retrieved, candidates: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Return the features `[batch, n, len(names)]` of candidates.

        A candidate's features do not depend on the other candidates of the list.

        Args:
            retrieved: The queries.
            candidates: Candidate indices `[batch, n]` int32.
            scores: Their scores by the retriever `[batch, n]`.
        """
        # Few large operations, because a single request spends its time on their number.
        blocks = [
            _of_scores(retrieved.top_scores, scores),
            # Reading a variable first avoids a copy of it by every gather.
            tf.gather(self._columns.read_value(), candidates),
            *self._of_events(retrieved.recent[:, :_NUM_NEWEST], candidates),
            _of_history(retrieved, candidates),
        ]
        if self._repeats:
            blocks.append(_of_positions(candidates, retrieved.recent))
        return tf.concat(blocks, axis=2)

    def successors(self, candidates: tf.Tensor, number: int) -> tf.Tensor:
        """Return the most frequent successors of `candidates` `[batch]`, -1 for missing ones."""
        near = tf.gather(self._neighbours[0].read_value(), tf.maximum(candidates, 0))
        return tf.where(candidates[:, None] >= 0, near[:, :number], -1)

    def _of_events(self, newest: tf.Tensor, candidates: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the features of rules, of co-occurrence, and of similarity to `newest` events."""
        own, is_event = tf.maximum(newest, 0), newest >= 0
        near, values = (
            tf.concat([tf.gather(table.read_value(), own) for table in tables], axis=1)
            for tables in (self._neighbours, self._values)
        )
        near = tf.where(tf.tile(is_event, [1, len(self._neighbours)])[:, :, None], near, -1)
        rules, cosines = tf.split(_joined(candidates, near, values), 2, axis=2)
        share = tf.cast(is_event, tf.float32)
        share = tf.math.divide_no_nan(share, tf.reduce_sum(share, axis=1, keepdims=True))
        vectors = tf.math.l2_normalize(self._vectors_at(candidates), axis=-1)
        events = tf.math.l2_normalize(self._vectors_at(own), axis=-1)
        similarities = tf.matmul(vectors, events, transpose_b=True)
        similarities = tf.where(is_event[:, None, :], similarities, -1.0)
        last = tf.where(is_event[:, None, 0], similarities[:, :, 0], 0.0)
        return (
            tf.linalg.matmul(rules, _RULES),
            tf.stack([tf.reduce_max(cosines, axis=2), tf.linalg.matvec(cosines, share)], axis=2),
            tf.stack(
                [last, tf.reduce_max(similarities, axis=2), tf.linalg.matvec(similarities, share)],
                axis=2,
            ),
        )


def _of_scores(top_scores: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    # The same score may differ by rounding, if it was computed for a list of another size.
    margin = _ROUNDING * tf.abs(top_scores[:, :1])
    rank = tf.cast(lower_bound(-top_scores, -scores - margin), tf.float32) + 1.0
    return tf.stack([scores, tf.math.log(rank), scores - top_scores[:, :1]], axis=2)


def newest_first(history: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the newest known events of histories, newest first, and the numbers of known events.

    `history` `[batch, events]` int32 has candidate indices, oldest first, and negative numbers for
    unknown candidates and padding. The results are `[batch, NUM_RECENT]`, padded with -1, and
    `[batch]`.
    """
    is_known = history >= 0
    nth = tf.cumsum(tf.cast(is_known, tf.int32), axis=1, reverse=True, exclusive=True)
    kept = tf.where(is_known & (nth < NUM_RECENT))
    cells = tf.stack([tf.cast(kept[:, 0], tf.int32), tf.gather_nd(nth, kept)], axis=1)
    recent = tf.tensor_scatter_nd_update(
        tf.fill([tf.shape(history)[0], NUM_RECENT], -1), cells, tf.gather_nd(history, kept)
    )
    return recent, tf.reduce_sum(tf.cast(is_known, tf.int32), axis=1)


def lower_bound(ascending: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return what `tf.searchsorted` does for rows, in one operation instead of eleven."""
    return tf.raw_ops.LowerBound(sorted_inputs=ascending, values=values)


def _joined(candidates: tf.Tensor, near: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return the value of each candidate among the neighbours of each event, 0 if it is none.

    `candidates` are indices `[batch, n]`. `near` are the neighbours of each event `[batch, m, k]`,
    -1 for none, with their `values`. The result is `[batch, n, m]`.
    """
    batch, number = tf.unstack(tf.shape(candidates))
    num_events, num_near = near.shape[1:]
    flat = tf.reshape(near, [batch, num_events * num_near])
    descending, order = tf.math.top_k(-candidates, number)
    ascending = -descending
    index = tf.minimum(lower_bound(ascending, flat), number - 1)
    # A negative index is no candidate, so it matches nothing.
    matches = tf.where(tf.gather(ascending, index, batch_dims=1) == flat)
    row, column = (tf.cast(matches[:, axis], tf.int32) for axis in (0, 1))
    position = tf.gather_nd(order, tf.stack([row, tf.gather_nd(index, matches)], axis=1))
    joined = tf.scatter_nd(
        tf.stack([row, position, column // num_near], axis=1),
        tf.gather_nd(tf.reshape(values, tf.shape(flat)), matches),
        [batch, number, num_events],
    )
    # A candidate that is repeated has been found at one of its positions only.
    found_at = tf.gather(order, lower_bound(ascending, candidates), batch_dims=1)
    return tf.gather(joined, found_at, batch_dims=1)


def _of_history(retrieved: Retrieved, candidates: tf.Tensor) -> tf.Tensor:
    ascending = tf.sort(retrieved.recent, axis=1)
    is_new = (ascending >= 0) & (
        ascending != tf.pad(ascending[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    )
    number, events = (
        tf.reduce_sum(tf.cast(mask, tf.float32), axis=1) for mask in (is_new, ascending >= 0)
    )
    length = tf.math.log1p(tf.cast(retrieved.length, tf.float32))
    of_query = tf.stack([length, tf.math.divide_no_nan(number, events)], axis=1)
    shape = [*tf.unstack(tf.shape(candidates)), of_query.shape[1]]
    return tf.broadcast_to(of_query[:, None, :], shape)


def _of_positions(candidates: tf.Tensor, recent: tf.Tensor) -> tf.Tensor:
    is_event = tf.cast(candidates[:, :, None] == recent[:, None, :], tf.float32)
    reciprocal = is_event / tf.range(1.0, NUM_RECENT + 1)
    position = tf.reduce_max(reciprocal, axis=2, keepdims=True)
    second = tf.reduce_max(tf.where(reciprocal < position, reciprocal, 0.0), axis=2)
    times = tf.reduce_sum(is_event, axis=2)
    events = tf.reduce_sum(tf.cast(recent >= 0, tf.float32), axis=1, keepdims=True)
    share = tf.math.divide_no_nan(times, events)
    others = tf.stack([position[:, :, 0], second, tf.math.log1p(times), share], axis=2)
    is_position = tf.abs(position - 1.0 / tf.range(1.0, _LAGS + 1)) < _ROUNDING
    return tf.concat([tf.cast(is_position, tf.float32), others], axis=2)
