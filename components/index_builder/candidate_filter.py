"""Allow-lists in a request: which candidates have one of the allowed values of a feature."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.catalogue_files import FilterFiles
from components.index_builder.lookup_files import LineIndex


class CandidateFilter(tf.Module):
    """Knows the values of one categorical feature of every candidate.

    It keeps eight bytes a value of a candidate, eight a candidate, and each different value once.

    Args:
        files: The feature's values.
    """

    def __init__(self, files: FilterFiles) -> None:
        super().__init__()
        self._num_values = files.num_values
        # A feature that no candidate has would make an empty table, which TensorFlow refuses.
        self._index = LineIndex(files.values_file, self._num_values) if self._num_values else None
        self._value_indices = _variable(files.value_indices, "value_indices")
        self._row_splits = _variable(files.row_splits, "row_splits")
        candidates, value_splits = files.by_value()
        self._candidates = _variable(candidates, "candidates_by_value")
        # One more value, which no candidate has.
        self._value_splits = _variable(np.append(value_splits, value_splits[-1]), "value_splits")

    def allowed(self, requested: tf.Tensor) -> tf.Tensor:
        """Returns which values a request allows.

        Args:
            requested: `[batch, m]` strings, padded with ""; a value that no candidate has allows
                none.

        Returns:
            `[batch, num_values + 1]` bool. The last place stands for the values that no candidate
            has; a row in which nothing is requested is False throughout.
        """
        batch = tf.shape(requested)[0]
        given = tf.where(requested != "")
        if self._index is None:
            values = tf.zeros([tf.shape(given)[0]], tf.int32)
        else:
            values = self._index.lookup(tf.gather_nd(requested, given))
        places = tf.stack([tf.cast(given[:, 0], tf.int32), values], axis=1)
        counts = tf.scatter_nd(
            places, tf.ones([tf.shape(given)[0]], tf.int32), [batch, self._num_values + 1]
        )
        return counts > 0

    def passes(self, allowed: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """Returns which candidates pass, `[batch, n]` bool.

        Args:
            allowed: `[batch, num_values + 1]`; where it is False throughout, all pass.
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
        """Returns how many candidates pass one row of `allowed`, at most; a scalar int64.

        Where it allows no value, and so lets all pass, it is the largest number: any other filter
        is better to start from.
        """
        values = tf.where(allowed)[:, 0]
        entries = tf.gather(self._value_splits, values + 1) - tf.gather(self._value_splits, values)
        return tf.where(tf.size(values) > 0, tf.reduce_sum(entries), tf.int64.max)

    def matches(self, allowed: tf.Tensor) -> tf.Tensor:
        """Returns the candidates that pass one row of `allowed`, which allows a value, `[n]`."""
        values = tf.where(allowed)[:, 0]
        entries = tf.ragged.range(
            tf.gather(self._value_splits, values), tf.gather(self._value_splits, values + 1)
        )
        # A candidate with two of the values comes twice.
        return tf.unique(tf.gather(self._candidates, entries.flat_values)).y


def _variable(values: npt.NDArray[Any], name: str) -> tf.Variable:
    return tf.Variable(values, trainable=False, name=name)


def _any_in_row(flags: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
    before = tf.concat([[0], tf.cumsum(tf.cast(flags, tf.int32))], axis=0)
    return tf.gather(before, row_splits[1:]) > tf.gather(before, row_splits[:-1])
