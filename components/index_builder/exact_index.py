"""Exact search: one matrix product and a top-k."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.search_index import SearchResult, search_all


class ExactIndex(tf.Module):
    """Finds the candidates with the largest dot products, all of them compared.

    Args:
        vectors: `[num_candidates, dimension]`.
    """

    backend = "exact"

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.num_candidates = len(vectors)
        self._vectors = tf.Variable(vectors, trainable=False, name="candidate_vectors")

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Returns indices and scores `[batch, count]`, best first (`SearchIndex.search`)."""
        return search_all(self, queries, count)

    def scores_of_all(self, queries: tf.Tensor) -> tf.Tensor:
        """Returns the scores `[batch, num_candidates]` of all candidates."""
        return tf.matmul(queries, self._vectors, transpose_b=True)

    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the vectors of candidates, `[…]` to `[…, dimension]`."""
        # Read first: TensorFlow lets a gather from a variable itself make every later read of the
        # whole variable a copy, ten times as slow as the search.
        return tf.gather(self._vectors.read_value(), indices)
