"""Exact search: one matrix product and a top-k."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class ExactIndex(tf.Module):
    """Finds the candidates with the largest dot products, all of them compared.

    Args:
        vectors: `[num_candidates, dimension]`.
    """

    backend = "exact"

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._vectors = tf.Variable(vectors, trainable=False, name="candidate_vectors")

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns indices and scores `[batch, count]`, best first.

        Args:
            queries: `[batch, dimension]`.
            count: Scalar int32, at most the number of candidates.
        """
        scores = tf.matmul(queries, self._vectors, transpose_b=True)
        best, indices = tf.math.top_k(scores, count)
        return indices, best

    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the vectors of candidates, `[batch]` to `[batch, dimension]`."""
        return tf.gather(self._vectors, indices)
