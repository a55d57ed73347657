"""Search with exclusions and filters: k candidates wherever that many qualify.

The index is asked for more than k, and what does not qualify is dropped. Where too few are left,
because a filter lets few pass, every candidate that passes it is scored.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from components.index_builder.candidate_filter import CandidateFilter
from components.index_builder.search_index import SearchIndex

# How many times more candidates a search with a filter asks the index for. Where a filter lets less
# than about an eighth pass, all that pass are scored.
_OVERFETCH = 8
# Beyond this share of qualifying candidates, scoring all of them beats gathering their vectors.
_LARGEST_GATHERED_SHARE = 1 / 16

Condition = tuple[CandidateFilter, tf.Tensor]


class Found(NamedTuple):
    """An answer, best first; all `[batch, k]`.

    Attributes:
        indices: Int32; arbitrary where there is no candidate.
        scores: Float32; the least float32 where there is no candidate.
        is_candidate: False in the last places where fewer than k candidates qualify.
    """

    indices: tf.Tensor
    scores: tf.Tensor
    is_candidate: tf.Tensor


def restricted_search(
    index: SearchIndex,
    queries: tf.Tensor,
    k: int,
    exclude: tf.Tensor,
    conditions: Sequence[Condition],
) -> Found:
    """Finds the k best candidates that are not excluded and pass every condition.

    Args:
        index: Asked for candidates; its recall is that of the answer, unless all that pass are
            scored.
        queries: `[batch, dimension]`.
        k: At most the number of candidates.
        exclude: `[batch, m]` int32 indices; negative ones exclude nothing.
        conditions: Filters and what a request allows of each (`CandidateFilter.allowed`).
    """
    # Sorted, membership is a binary search; the additional column lets it find something.
    excluded = tf.sort(tf.pad(exclude, [[0, 0], [0, 1]], constant_values=-1), axis=1)
    count = k + tf.shape(exclude)[1]
    if conditions:
        is_filtered = tf.reduce_any(tf.stack([tf.reduce_any(values) for _, values in conditions]))
        count *= tf.where(is_filtered, _OVERFETCH, 1)
    count = tf.minimum(count, index.num_candidates)
    indices, scores = index.search(queries, count)
    qualifies = ~_is_member(excluded, indices)
    for candidate_filter, allowed in conditions:
        qualifies &= candidate_filter.passes(allowed, indices)
    best, order = tf.math.top_k(tf.where(qualifies, scores, tf.float32.min), k)
    found = Found(
        tf.gather(indices, order, batch_dims=1),
        best,
        tf.gather(qualifies, order, batch_dims=1),
    )
    if not conditions:
        return found
    too_few = ~found.is_candidate[:, -1] & (count < index.num_candidates)
    completed = tf.cond(
        tf.reduce_any(too_few),
        lambda: _search_rows(index, queries, k, excluded, conditions, too_few, found),
        lambda: found,
    )
    return Found(*completed)


def _search_rows(
    index: SearchIndex,
    queries: tf.Tensor,
    k: int,
    excluded: tf.Tensor,
    conditions: Sequence[Condition],
    too_few: tf.Tensor,
    found: Found,
) -> Found:
    """Scores every candidate that qualifies, for the rows that have too few.

    A row has too few only where a filter lets few pass: from the candidates of the filter that lets
    the fewest pass, those are kept that the others let pass too.
    """

    # One row after the other: together they would need memory for rows x catalogue.
    def search_row(row: tf.Tensor) -> Found:
        allowed = [values[row] for _, values in conditions]
        fewest = tf.argmin(
            tf.stack(
                [
                    candidate_filter.num_matches(values)
                    for (candidate_filter, _), values in zip(conditions, allowed, strict=True)
                ]
            ),
            output_type=tf.int32,
        )
        # The default arguments bind this round's.
        candidates = tf.switch_case(
            fewest,
            [
                lambda candidate_filter=candidate_filter, values=values: candidate_filter.matches(
                    values
                )
                for (candidate_filter, _), values in zip(conditions, allowed, strict=True)
            ],
        )
        qualifies = ~_is_member(excluded[row][None], candidates[None])
        for (candidate_filter, _), values in zip(conditions, allowed, strict=True):
            qualifies &= candidate_filter.passes(values[None], candidates[None])
        return _best_of(index, queries[row], k, tf.boolean_mask(candidates, qualifies[0]))

    rows = tf.where(too_few)
    searched = tf.map_fn(
        search_row,
        rows[:, 0],
        fn_output_signature=Found(
            tf.TensorSpec([k], tf.int32),
            tf.TensorSpec([k], tf.float32),
            tf.TensorSpec([k], tf.bool),
        ),
        parallel_iterations=1,
    )
    return Found(
        *(
            tf.tensor_scatter_nd_update(before, rows, after)
            for before, after in zip(found, searched, strict=True)
        )
    )


def _best_of(index: SearchIndex, query: tf.Tensor, k: int, candidates: tf.Tensor) -> Found:
    """Returns the k best of the candidates `[n]`, `[k]` each."""
    num_candidates = tf.shape(candidates)[0]
    few = int(index.num_candidates * _LARGEST_GATHERED_SHARE)
    scores = tf.cond(
        num_candidates <= few,
        lambda: tf.linalg.matvec(index.vectors_at(candidates), query),
        lambda: tf.gather(index.scores_of_all(query[None])[0], candidates),
    )
    best, order = tf.math.top_k(scores, tf.minimum(num_candidates, k))
    missing = [[0, k - tf.shape(best)[0]]]
    return Found(
        tf.ensure_shape(tf.pad(tf.gather(candidates, order), missing), [k]),
        tf.ensure_shape(tf.pad(best, missing, constant_values=tf.float32.min), [k]),
        tf.ensure_shape(tf.pad(tf.ones_like(best, tf.bool), missing), [k]),
    )


def _is_member(sorted_sets: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """Returns which `items` `[batch, n]` are in the row's set `[batch, m]`, m > 0."""
    places = tf.minimum(tf.searchsorted(sorted_sets, items), tf.shape(sorted_sets)[1] - 1)
    return tf.gather(sorted_sets, places, batch_dims=1) == items
