"""Search with exclusions and filters that returns k candidates if that many qualify.

A search requests more than k candidates from the index and drops those that do not qualify. If a
selective filter leaves too few, every candidate that passes the filter is scored.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.catalogue_files import FilterFiles, LineIndex
from components.index_builder.search_index import SearchIndex

# With a filter, the index is asked for this many times as many candidates. If less than about an
# eighth of them pass, every candidate of the catalogue that passes is scored.
_OVERFETCH = 8
# If more than this share of the catalogue qualifies, scoring the whole catalogue is faster than
# gathering the vectors of the qualifying candidates.
_LARGEST_GATHERED_SHARE = 1 / 16


class CandidateFilter(tf.Module):
    """Filters candidates by the values of one categorical feature.

    It takes 8 bytes per candidate, 8 bytes per value of a candidate, and the distinct values
    themselves.
    """

    def __init__(self, files: FilterFiles) -> None:
        super().__init__()
        self._num_values = files.num_values
        # TensorFlow rejects an empty table, which a feature that no candidate has would need.
        self._index = LineIndex(files.values_file, self._num_values) if self._num_values else None
        self._value_indices = _variable(files.value_indices, "value_indices")
        self._row_splits = _variable(files.row_splits, "row_splits")
        candidates, value_splits = files.by_value()
        self._candidates = _variable(candidates, "candidates_by_value")
        # The last value represents all values that no candidate has.
        self._value_splits = _variable(np.append(value_splits, value_splits[-1]), "value_splits")

    def allowed(self, requested: tf.Tensor) -> tf.Tensor:
        """Return a mask of the values that each request allows, `[batch, num_values + 1]` bool.

        The last column represents all values that no candidate has. A row without requested values
        is all False. `requested` is `[batch, m]` strings, padded with "".
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
        """Return a mask of the candidates that pass the filter, `[batch, n]` bool.

        Args:
            allowed: `[batch, num_values + 1]`; if a row is all False, all candidates pass.
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
        """Return an upper bound of the number of candidates that pass one row of `allowed`.

        The result is a scalar int64. It is the largest int64 if the row is all False, that is, if
        the filter is not used, so that any other filter counts as more selective.
        """
        values = tf.where(allowed)[:, 0]
        entries = tf.gather(self._value_splits, values + 1) - tf.gather(self._value_splits, values)
        return tf.where(tf.size(values) > 0, tf.reduce_sum(entries), tf.int64.max)

    def matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return the candidates `[n]` that pass one row of `allowed` with at least one True."""
        values = tf.where(allowed)[:, 0]
        entries = tf.ragged.range(
            tf.gather(self._value_splits, values), tf.gather(self._value_splits, values + 1)
        )
        # A candidate with two allowed values occurs twice in `entries`.
        return tf.unique(tf.gather(self._candidates, entries.flat_values)).y


Condition = tuple[CandidateFilter, tf.Tensor]


class Found(NamedTuple):
    """The results of a search, best first; all tensors are `[batch, k]`.

    Attributes:
        indices: Candidate indices, int32; arbitrary if `is_candidate` is False.
        scores: Float32; the lowest finite float32 if `is_candidate` is False.
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
        k: Number of results; at most the number of candidates.
        exclude: `[batch, m]` int32 candidate indices; negative ones are ignored.
        conditions: Filters, each with its mask of allowed values (`CandidateFilter.allowed`).
    """
    # Membership is tested by a binary search in sorted rows. The added column ensures that no row
    # is empty.
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
    """Search the rows `too_few` of `found` again by scoring every candidate that qualifies.

    A row has too few candidates only if one of its filters is selective. The search starts from the
    candidates of the most selective filter and keeps those that pass the others.
    """

    # One row at a time, because all rows together would need memory for rows × catalogue scores.
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
    """Return the k best of `candidates` `[n]`; all tensors of the result are `[k]`."""
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
    """Return a mask of the `items` `[batch, n]` in the set `[batch, m]` of their row; m > 0."""
    found = tf.minimum(tf.searchsorted(sorted_sets, items), tf.shape(sorted_sets)[1] - 1)
    return tf.gather(sorted_sets, found, batch_dims=1) == items


def _variable(values: npt.NDArray[Any], name: str) -> tf.Variable:
    return tf.Variable(values, trainable=False, name=name)


def _any_in_row(flags: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
    before = tf.concat([[0], tf.cumsum(tf.cast(flags, tf.int32))], axis=0)
    return tf.gather(before, row_splits[1:]) > tf.gather(before, row_splits[:-1])
