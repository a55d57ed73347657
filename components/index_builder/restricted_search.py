"""Search with exclusions and filters that returns k candidates if that many qualify.

The index returns more than k candidates, and those that do not qualify are dropped. If too few are
left, because a filter is selective, every candidate that passes the filter is scored.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.catalogue_files import FilterFiles, LineIndex
from components.index_builder.search_index import SearchIndex

# With a filter, the index is asked for this many times more candidates. If less than about an
# eighth of them pass, all that pass are scored.
_OVERFETCH = 8
# Beyond this share of qualifying candidates, scoring all is faster than gathering their vectors.
_LARGEST_GATHERED_SHARE = 1 / 16


class CandidateFilter(tf.Module):
    """Filters candidates by the values of one categorical feature.

    It takes eight bytes per candidate, eight per value of a candidate, and each distinct value.
    """

    def __init__(self, files: FilterFiles) -> None:
        super().__init__()
        self._num_values = files.num_values
        # TensorFlow refuses an empty table, for a feature that no candidate has.
        self._index = LineIndex(files.values_file, self._num_values) if self._num_values else None
        self._value_indices = _variable(files.value_indices, "value_indices")
        self._row_splits = _variable(files.row_splits, "row_splits")
        candidates, value_splits = files.by_value()
        self._candidates = _variable(candidates, "candidates_by_value")
        # The last value means any value that no candidate has.
        self._value_splits = _variable(np.append(value_splits, value_splits[-1]), "value_splits")

    def allowed(self, requested: tf.Tensor) -> tf.Tensor:
        """Return the values that a request allows, `[batch, num_values + 1]` bool.

        The last column is for values that no candidate has. A row without requested values is all
        False. The requested values are `[batch, m]` strings, padded with "".
        """
        batch = tf.shape(requested)[0]
        given = tf.where(requested != "")
        if self._index is None:
            values = tf.zeros([tf.shape(given)[0]], tf.int32)
        else:
            values = self._index.lookup(tf.gather_nd(requested, given))
        cells = tf.stack([tf.cast(given[:, 0], tf.int32), values], axis=1)
        counts = tf.scatter_nd(cells, tf.ones_like(values), [batch, self._num_values + 1])
        return counts > 0

    def passes(self, allowed: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """Return which candidates pass, `[batch, n]` bool.

        Args:
            allowed: `[batch, num_values + 1]`; in an all-False row, all candidates pass.
            candidates: `[batch, n]` int32 indices.
        """
        width = tf.shape(candidates)[1]
        flat = tf.reshape(candidates, [-1])
        values = tf.ragged.range(
            tf.gather(self._row_splits, flat), tf.gather(self._row_splits, flat + 1)
        )
        row = tf.cast(values.value_rowids(), tf.int32) // tf.maximum(width, 1)
        value = tf.gather(self._value_indices, values.flat_values)
        hits = tf.gather_nd(allowed, tf.stack([row, value], axis=1))
        found = tf.reshape(_any_in_row(hits, values.row_splits), tf.shape(candidates))
        return found | ~tf.reduce_any(allowed, axis=1, keepdims=True)

    def num_matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return an upper bound on the candidates that pass one row of `allowed`; scalar int64.

        If the row allows no value, so that all pass, the result is the largest int64: any other
        filter is a better start.
        """
        values = tf.where(allowed)[:, 0]
        entries = tf.gather(self._value_splits, values + 1) - tf.gather(self._value_splits, values)
        return tf.where(tf.size(values) > 0, tf.reduce_sum(entries), tf.int64.max)

    def matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return the candidates `[n]` that pass one row of `allowed`, which allows some value."""
        values = tf.where(allowed)[:, 0]
        entries = tf.ragged.range(
            tf.gather(self._value_splits, values), tf.gather(self._value_splits, values + 1)
        )
        # A candidate with two of the values occurs twice.
        return tf.unique(tf.gather(self._candidates, entries.flat_values)).y


Condition = tuple[CandidateFilter, tf.Tensor]


class Found(NamedTuple):
    """The result of a search, best first; all `[batch, k]`.

    Attributes:
        indices: Int32; arbitrary if there is no candidate.
        scores: Float32; the least float32 if there is no candidate.
        is_candidate: False at the end if fewer than k candidates qualify.
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
    """Find the k best candidates that are not excluded and pass every condition.

    Args:
        index: The index to search.
        queries: `[batch, dimension]`.
        k: At most the number of candidates.
        exclude: `[batch, m]` int32 indices; negative ones exclude nothing.
        conditions: Filters with the values that the request allows (`CandidateFilter.allowed`).
    """
    # Membership is a binary search in sorted rows, which the added column keeps from being empty.
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
    """Score every candidate that qualifies, for the rows that have too few.

    A row has too few only if a filter is selective. The search starts from the candidates of the
    most selective filter and keeps those that pass the others.
    """

    # One row at a time: together, they would need memory for rows × catalogue.
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
        # The default arguments bind the values of this iteration.
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
    """Return the k best of the candidates `[n]`, all `[k]`."""
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
    """Return which `items` `[batch, n]` are in the set `[batch, m]` of their row, m > 0."""
    found = tf.minimum(tf.searchsorted(sorted_sets, items), tf.shape(sorted_sets)[1] - 1)
    return tf.gather(sorted_sets, found, batch_dims=1) == items


def _variable(values: npt.NDArray[Any], name: str) -> tf.Variable:
    return tf.Variable(values, trainable=False, name=name)


def _any_in_row(flags: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
    before = tf.concat([[0], tf.cumsum(tf.cast(flags, tf.int32))], axis=0)
    return tf.gather(before, row_splits[1:]) > tf.gather(before, row_splits[:-1])
