"""What every search backend does, and how one that found too few is completed."""

from typing import Protocol

import tensorflow as tf

SearchResult = tuple[tf.Tensor, tf.Tensor]


class SearchIndex(Protocol):
    """A `tf.Module` that finds the candidates with the largest dot products.

    It is traced into the served graph, so all arguments may be symbolic. Candidates are known by
    their index, `0 .. num_candidates - 1`, in the order of the vectors it was built from.
    """

    backend: str
    num_candidates: int

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Returns int32 indices and float32 scores, both `[batch, count]`, best first.

        Every row holds `count` different candidates with finite scores, whatever the settings: a
        backend whose own search finds fewer compares all of them.

        Args:
            queries: `[batch, dimension]` float32; the batch may be empty.
            count: Scalar int32, at most `num_candidates`.
        """

    def scores_of_all(self, queries: tf.Tensor) -> tf.Tensor:
        """Returns the scores `[batch, num_candidates]` of all candidates, in index order.

        They are as exact as the vectors that the backend keeps. It reads the whole catalogue: for
        questions that no search can answer, such as one under a filter that lets few pass.
        """

    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the vectors of candidates, `[…]` to `[…, dimension]`."""


def search_all(index: SearchIndex, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
    """Returns what `index.search` would if it compared all candidates."""
    scores, indices = tf.math.top_k(index.scores_of_all(queries), count)
    return indices, scores


def completed(
    index: SearchIndex, queries: tf.Tensor, count: tf.Tensor, attempt: SearchResult
) -> SearchResult:
    """Returns what a search found, and where it found too few, what `search_all` finds.

    Args:
        index: That was searched.
        queries: `[batch, dimension]`.
        count: Scalar int32.
        attempt: Indices and scores `[batch, count]`; the scores of missing places are not finite.
    """
    indices, scores = attempt
    is_short = ~tf.reduce_all(tf.math.is_finite(scores), axis=1)

    def complete() -> SearchResult:
        rows = tf.where(is_short)
        missing = search_all(index, tf.gather_nd(queries, rows), count)
        return (
            tf.tensor_scatter_nd_update(indices, rows, missing[0]),
            tf.tensor_scatter_nd_update(scores, rows, missing[1]),
        )

    indices, scores = tf.cond(tf.reduce_any(is_short), complete, lambda: (indices, scores))
    return indices, scores
