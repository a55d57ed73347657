"""What every search backend does, and how one that found too few is completed."""

from collections.abc import Callable
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
    found: tf.Tensor, result: Callable[[], SearchResult], otherwise: Callable[[], SearchResult]
) -> SearchResult:
    """Returns `result` if the search found enough for every row, else `otherwise`.

    Args:
        found: Scalar bool, whether it did.
        result: Of the search.
        otherwise: Compares all candidates; runs only then.
    """
    indices, scores = tf.cond(found, result, otherwise)
    return indices, scores
