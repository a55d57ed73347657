"""The base class of search backends, and exact search."""

import abc
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.ranking.stage import NO_SCORE

SearchResult = tuple[tf.Tensor, tf.Tensor]


class SearchIndex(tf.Module, abc.ABC):
    """Finds the candidates with the largest dot products.

    Its methods are traced into the served graph, so all arguments may be symbolic. A candidate is
    identified by its index, `0 .. num_candidates - 1`, in the order of the vectors.

    Attributes:
        settings: A dataclass of search settings, which may change; a trace uses the current ones.
    """

    backend: str
    num_candidates: int
    settings: Any = None

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Return int32 indices and float32 scores, both `[batch, count]`, best first.

        Every row has `count` distinct candidates with finite scores. If a backend finds fewer for a
        row, it scores all candidates for that row.

        Args:
            queries: `[batch, dimension]` float32; the batch may be empty.
            count: Scalar int32, at most `num_candidates`.
        """
        return self.completed(queries, count, self.attempt(queries, count))

    def search_except(
        self, queries: tf.Tensor, count: tf.Tensor, exclude: tf.Tensor
    ) -> SearchResult:
        """Search like `search`, but give excluded candidates the score `NO_SCORE`.

        A row has at least `count` candidates that are not excluded if there are so many. They are
        in no particular order.

        Args:
            queries: `[batch, dimension]` float32; the batch may be empty.
            count: Scalar int32, at most `num_candidates`.
            exclude: `[batch, m]` int32 candidate indices; negative ones are ignored.
        """
        wide = tf.minimum(count + tf.shape(exclude)[1], self.num_candidates)
        indices, scores = self.search(queries, wide)
        hidden = is_excluded(indices, sorted_exclusions(exclude))
        return indices, tf.where(hidden, NO_SCORE, scores)

    @abc.abstractmethod
    def attempt(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Search like `search`, but give missing candidates a score that is not finite."""

    def end_tuning(self) -> None:
        """Free the memory that only `attempt` needs."""

    @abc.abstractmethod
    def scores_of_all(self, queries: tf.Tensor) -> tf.Tensor:
        """Return the scores `[batch, num_candidates]` of all candidates, in index order.

        The scores are as exact as the stored vectors, which may be quantized. This reads the whole
        catalogue, so use it only if `search` cannot answer a query, for example with a filter.
        """

    @abc.abstractmethod
    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Return the vectors `[…, dimension]` of the candidates `indices` `[…]`."""

    def search_all(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Search by scoring all candidates."""
        scores, indices = tf.math.top_k(self.scores_of_all(queries), count)
        return indices, scores

    def completed(
        self, queries: tf.Tensor, count: tf.Tensor, attempt: SearchResult
    ) -> SearchResult:
        """Replace the rows of `attempt` that lack candidates with those of `search_all`."""
        indices, scores = attempt
        is_short = ~tf.reduce_all(tf.math.is_finite(scores), axis=1)

        def complete() -> SearchResult:
            rows = tf.where(is_short)
            missing = self.search_all(tf.gather_nd(queries, rows), count)
            return (
                tf.tensor_scatter_nd_update(indices, rows, missing[0]),
                tf.tensor_scatter_nd_update(scores, rows, missing[1]),
            )

        indices, scores = tf.cond(tf.reduce_any(is_short), complete, lambda: (indices, scores))
        return indices, scores


class ExactIndex(SearchIndex):
    """Exact search: one matrix product with all candidates and a top-k."""

    backend = "exact"

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.num_candidates = len(vectors)
        self._vectors = tf.Variable(vectors, trainable=False, name="candidate_vectors")

    def attempt(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Return the best candidates; none is ever missing."""
        return self.search_all(queries, count)

    search = attempt

    def search_except(
        self, queries: tf.Tensor, count: tf.Tensor, exclude: tf.Tensor
    ) -> SearchResult:
        """Return the best candidates; a long history does not make the top-k larger."""
        rows = tf.where(exclude >= 0)
        cells = tf.stack([rows[:, 0], tf.cast(tf.gather_nd(exclude, rows), tf.int64)], axis=1)
        hidden = tf.fill(tf.shape(cells)[:1], NO_SCORE)
        scores = tf.tensor_scatter_nd_update(self.scores_of_all(queries), cells, hidden)
        scores, indices = tf.math.top_k(scores, count)
        return indices, scores

    def scores_of_all(self, queries: tf.Tensor) -> tf.Tensor:
        """Return the scores `[batch, num_candidates]` of all candidates."""
        return tf.matmul(queries, self._vectors, transpose_b=True)

    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Return the vectors `[…, dimension]` of the candidates `indices` `[…]`."""
        # Read the variable first: after a gather from the variable itself, TensorFlow copies the
        # whole variable on every later read, which takes ten times as long as the search.
        return tf.gather(self._vectors.read_value(), indices)


def sorted_exclusions(exclude: tf.Tensor) -> tf.Tensor:
    """Return candidate indices `[batch, m]` as sorted rows for `is_excluded`."""
    # Membership is tested by a binary search. The added column ensures that no row is empty.
    return tf.sort(tf.pad(exclude, [[0, 0], [0, 1]], constant_values=-1), axis=1)


def is_excluded(candidates: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Return a mask of the `candidates` `[batch, n]` in the rows of `sorted_exclusions`."""
    found = tf.minimum(tf.searchsorted(excluded, candidates), tf.shape(excluded)[1] - 1)
    return tf.gather(excluded, found, batch_dims=1) == candidates
