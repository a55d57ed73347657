"""Search with exclusions and filters that returns k candidates if that many qualify.

With a filter, a search requests more than k candidates from the index and drops those that do not
pass. If a selective filter leaves too few, every candidate that passes it is scored.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from components.index_builder.catalogue_files import FilterFiles, LineIndex
from components.index_builder.search_index import (
    SearchIndex,
    SearchResult,
    is_excluded,
    sorted_exclusions,
)
from models.input.availability import Availability
from models.ranking.stage import NO_SCORE

# With a filter, the index is asked for this many times as many candidates. If less than about an
# eighth of them pass, every candidate of the catalogue that passes is scored.
_OVERFETCH = 8
# If some candidates are not available, the index is asked for this many times as many as needed.
_AVAILABILITY_MARGIN = 2
# If even more would be needed, every candidate that passes is scored at once: ordering a large part
# of the catalogue takes longer.
_LARGEST_OVERFETCH = _AVAILABILITY_MARGIN * _OVERFETCH
# If more than this share of the catalogue qualifies, scoring the whole catalogue is faster than
# gathering the vectors of the qualifying candidates.
_LARGEST_GATHERED_SHARE = 1 / 16


class Filter(Protocol):
    """A filter of candidates, by values `allowed` with one row for each request."""

    def passes(self, allowed: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """Return a mask of the candidates `[batch, n]` int32 that pass, with the same shape."""

    def overfetch(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return how many times as many candidates to request, a scalar int64; 1 if all pass."""

    def num_matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return an upper bound of the number of candidates that pass one row of `allowed`.

        The result is a scalar int64. It is the largest int64 if the filter is not used, so that any
        other filter counts as more selective.
        """

    def matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return the candidates `[n]` that pass one row of `allowed`, if the filter is used."""


class AvailabilityFilter(tf.Module):
    """Filters candidates by their availability at the time of a request, `[batch]` epoch seconds.

    It takes 32 bytes per candidate.
    """

    def __init__(self, availability: Availability) -> None:
        super().__init__()
        both = availability.start, availability.end
        self._start, self._end = (tf.Variable(of, trainable=False) for of in both)
        self._starts, self._ends = (tf.Variable(np.sort(of), trainable=False) for of in both)

    def passes(self, allowed: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """Return a mask of the candidates that are available (`Filter.passes`)."""
        times = Availability(self._start.read_value(), self._end.read_value())
        return times.take(candidates).at(allowed[:, None])

    def overfetch(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return how many times as many candidates to request (`Filter.overfetch`)."""
        least = tf.maximum(tf.reduce_min(self._number_at(allowed)), 1)
        size = tf.size(self._starts, tf.int64)
        return tf.where(least < size, -(-_AVAILABILITY_MARGIN * size // least), 1)

    def num_matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return the number of candidates that are available (`Filter.num_matches`)."""
        return self._number_at(allowed[None])[0]

    def matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return the candidates that are available (`Filter.matches`)."""
        is_available = Availability(self._start, self._end).at(allowed)
        return tf.cast(tf.where(is_available)[:, 0], tf.int32)

    def _number_at(self, times: tf.Tensor) -> tf.Tensor:
        started, ended = (
            tf.searchsorted(of, times, side="right", out_type=tf.int64)
            for of in (self._starts, self._ends)
        )
        return started - ended


class CandidateFilter(tf.Module):
    """Filters candidates by the values of one categorical feature.

    It takes 8 bytes per candidate, 8 bytes per value of a candidate, and the distinct values
    themselves. The last value represents all values that no candidate has.
    """

    def __init__(self, files: FilterFiles) -> None:
        super().__init__()
        self._num_values = files.num_values
        self._index = LineIndex(files.values_file, missing=self._num_values)
        counts = np.bincount(files.value_indices, minlength=self._num_values + 1)
        owners = np.repeat(
            np.arange(len(files.row_splits) - 1, dtype=np.int32), np.diff(files.row_splits)
        )
        by_value = np.argsort(files.value_indices, kind="stable")
        # The values of each candidate and the candidates with each value, as rows and their splits.
        self._value_indices = tf.Variable(files.value_indices, False)
        self._row_splits = tf.Variable(files.row_splits, False)
        self._candidates = tf.Variable(owners[by_value], False)
        self._value_splits = tf.Variable(np.concatenate(([0], np.cumsum(counts))), False)

    def allowed(self, requested: tf.Tensor) -> tf.Tensor:
        """Return a mask of the values that each request allows, `[batch, num_values + 1]` bool.

        A row without requested values is all False: all candidates pass. `requested` is
        `[batch, m]` strings, padded with "".
        """
        given = tf.where(requested != "")
        values = self._index.lookup(tf.gather_nd(requested, given))
        cells = tf.stack([tf.cast(given[:, 0], tf.int32), values], axis=1)
        shape = [tf.shape(requested)[0], self._num_values + 1]
        return tf.scatter_nd(cells, tf.ones_like(values), shape) > 0

    def passes(self, allowed: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """Return a mask of the candidates `[batch, n]` int32 that pass, with the same shape."""
        flat = tf.reshape(candidates, [-1])
        values = tf.ragged.range(
            tf.gather(self._row_splits, flat), tf.gather(self._row_splits, flat + 1)
        )
        row = tf.cast(values.value_rowids(), tf.int32) // tf.maximum(tf.shape(candidates)[1], 1)
        value = tf.gather(self._value_indices, values.flat_values)
        hits = tf.gather_nd(allowed, tf.stack([row, value], axis=1))
        found = tf.reshape(_any_in_row(hits, values.row_splits), tf.shape(candidates))
        return found | ~tf.reduce_any(allowed, axis=1, keepdims=True)

    def overfetch(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return how many times as many candidates to request (`Filter.overfetch`)."""
        return tf.where(tf.reduce_any(allowed), tf.constant(_OVERFETCH, tf.int64), 1)

    def num_matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return an upper bound of the number that pass, the largest int64 if the row is all False.

        See `Filter.num_matches`.
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


# A filter with what each request allows.
Condition = tuple[Filter, tf.Tensor]


def restricted_search(
    index: SearchIndex,
    queries: tf.Tensor,
    k: int,
    exclude: tf.Tensor,
    conditions: Sequence[Condition],
) -> SearchResult:
    """Find the k best candidates that are not excluded and pass every condition.

    If fewer than k candidates qualify, the last scores are `NO_SCORE` with arbitrary indices.

    Args:
        index: The index to search, with at least `k` candidates.
        queries: `[batch, dimension]`.
        k: Number of results.
        exclude: `[batch, m]` int32 candidate indices; negative ones are ignored.
        conditions: The filters of each query.
    """
    count, is_selective = tf.constant(k), tf.constant(False)
    if conditions:
        factor = tf.reduce_max(tf.stack([of.overfetch(allowed) for of, allowed in conditions]))
        is_selective = factor > _LARGEST_OVERFETCH
        factor = tf.where(is_selective, tf.ones_like(factor), factor)
        count = tf.cast(tf.minimum(factor * k, index.num_candidates), tf.int32)
    indices, scores = index.search_except(queries, count, exclude)
    for condition, allowed in conditions:
        scores = tf.where(condition.passes(allowed, indices), scores, NO_SCORE)
    best, order = tf.math.top_k(scores, k)
    found = tf.gather(indices, order, batch_dims=1), best
    if not conditions:
        return found
    too_few = is_selective | (best[:, -1] == NO_SCORE) & (count < index.num_candidates)
    indices, scores = tf.cond(
        tf.reduce_any(too_few),
        lambda: _search_rows(index, queries, k, exclude, conditions, too_few, found),
        lambda: found,
    )
    return indices, scores


def qualifying(
    candidates: tf.Tensor, excluded: tf.Tensor, conditions: Sequence[Condition]
) -> tf.Tensor:
    """Return a mask of the `candidates` `[batch, n]` that are not excluded and pass.

    `excluded` is a result of `sorted_exclusions`.
    """
    qualifies = ~is_excluded(candidates, excluded)
    for candidate_filter, allowed in conditions:
        qualifies &= candidate_filter.passes(allowed, candidates)
    return qualifies


def _search_rows(
    index: SearchIndex,
    queries: tf.Tensor,
    k: int,
    exclude: tf.Tensor,
    conditions: Sequence[Condition],
    too_few: tf.Tensor,
    found: SearchResult,
) -> SearchResult:
    """Search the rows `too_few` of `found` again by scoring every candidate that qualifies.

    A row has too few candidates only if one of its filters is selective. The search starts from the
    candidates of the most selective filter and keeps those that pass the others.
    """
    excluded = sorted_exclusions(exclude)

    # One row at a time, because all rows together would need memory for rows × catalogue scores.
    def search_row(row: tf.Tensor) -> SearchResult:
        of_row = [(condition, allowed[row]) for condition, allowed in conditions]
        sizes = tf.stack([condition.num_matches(allowed) for condition, allowed in of_row])
        # The default argument binds the value of this iteration.
        candidates = tf.switch_case(
            tf.argmin(sizes, output_type=tf.int32),
            [lambda pair=pair: pair[0].matches(pair[1]) for pair in of_row],
        )
        of_row = [(condition, allowed[None]) for condition, allowed in of_row]
        qualifies = qualifying(candidates[None], excluded[row][None], of_row)
        return _best_of(index, queries[row], k, tf.boolean_mask(candidates, qualifies[0]))

    rows = tf.where(too_few)
    indices, scores = tf.map_fn(
        search_row,
        rows[:, 0],
        fn_output_signature=(tf.TensorSpec([k], tf.int32), tf.TensorSpec([k], tf.float32)),
        parallel_iterations=1,
    )
    return (
        tf.tensor_scatter_nd_update(found[0], rows, indices),
        tf.tensor_scatter_nd_update(found[1], rows, scores),
    )


def _best_of(index: SearchIndex, query: tf.Tensor, k: int, candidates: tf.Tensor) -> SearchResult:
    """Return the k best of `candidates` `[n]`, both tensors `[k]`."""
    num_candidates = tf.shape(candidates)[0]
    few = int(index.num_candidates * _LARGEST_GATHERED_SHARE)
    scores = tf.cond(
        num_candidates <= few,
        lambda: tf.linalg.matvec(index.vectors_at(candidates), query),
        lambda: tf.gather(index.scores_of_all(query[None])[0], candidates),
    )
    best, order = tf.math.top_k(scores, tf.minimum(num_candidates, k))
    missing = [[0, k - tf.shape(best)[0]]]
    return (
        tf.ensure_shape(tf.pad(tf.gather(candidates, order), missing), [k]),
        tf.ensure_shape(tf.pad(best, missing, constant_values=NO_SCORE), [k]),
    )


def _any_in_row(flags: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
    before = tf.concat([[0], tf.cumsum(tf.cast(flags, tf.int32))], axis=0)
    return tf.gather(before, row_splits[1:]) > tf.gather(before, row_splits[:-1])
