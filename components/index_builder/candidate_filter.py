"""Allow-lists in a request: which candidates have one of the allowed values of a feature."""

import numpy as np
import tensorflow as tf

from components.index_builder.catalogue_files import FilterFiles
from components.index_builder.lookup_files import LineIndex


class CandidateFilter(tf.Module):
    """Knows the values of one categorical feature of every candidate.

    It keeps four bytes a value and eight a candidate, and each different value once.

    Args:
        files: The feature's values.
    """

    def __init__(self, files: FilterFiles) -> None:
        super().__init__()
        with tf.io.gfile.GFile(files.values_file, "rb") as lines:
            self._num_values = sum(1 for _ in lines)
        # A feature that no candidate has would make an empty table, which TensorFlow refuses.
        self._index = LineIndex(files.values_file, self._num_values) if self._num_values else None
        self._value_indices = tf.Variable(
            files.value_indices.astype(np.int32), trainable=False, name="value_indices"
        )
        self._row_splits = tf.Variable(
            files.row_splits.astype(np.int64), trainable=False, name="value_row_splits"
        )

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

    def passes_of_all(self, allowed: tf.Tensor) -> tf.Tensor:
        """Returns which of all candidates pass one row of `allowed`, `[num_candidates]` bool."""
        hits = tf.gather(allowed, self._value_indices)
        return _any_in_row(hits, self._row_splits) | ~tf.reduce_any(allowed)


def _any_in_row(flags: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
    before = tf.concat([[0], tf.cumsum(tf.cast(flags, tf.int32))], axis=0)
    return tf.gather(before, row_splits[1:]) > tf.gather(before, row_splits[:-1])
