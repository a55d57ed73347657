"""How many of the exact answers an index finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.search_index import SearchIndex, SearchResult

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]

QUERIES_A_BATCH = 128
# Scores of one block: 16 million float32 are 64 MB.
_SCORES_IN_A_BLOCK = 16_000_000
# Scores closer than this, relative to the largest, are equal: the order of a sum moves them more.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class ExactAnswers:
    """Queries and what exact search finds for them.

    Attributes:
        queries: `[num_queries, dimension]`.
        indices: `[num_queries, k]`, best first.
        scores: `[num_queries, k]`.
    """

    queries: Vectors
    indices: Indices
    scores: Vectors

    @property
    def k(self) -> int:
        """Neighbours that are compared."""
        return self.indices.shape[1]


def exact_answers(vectors: Vectors, queries: Vectors, k: int) -> ExactAnswers:
    """Compares every query with every candidate, a block of the catalogue at a time.

    Args:
        vectors: `[num_candidates, dimension]`; may be a mapped file.
        queries: `[num_queries, dimension]`.
        k: At most the number of candidates counts.
    """
    k = min(k, len(vectors))
    parts = [
        _answers_to_batch(vectors, queries[start : start + QUERIES_A_BATCH], k)
        for start in range(0, len(queries), QUERIES_A_BATCH)
    ]
    indices, scores = zip(*parts, strict=True) if parts else ([], [])
    none = np.zeros((0, k))
    return ExactAnswers(
        queries,
        np.concatenate([none.astype(np.int32), *indices]),
        np.concatenate([none.astype(np.float32), *scores]),
    )


def recall_of_each(vectors: Vectors, exact: ExactAnswers, found: Indices) -> Vectors:
    """Returns, for each query, the share of its exact answers that were found, `[num_queries]`.

    A candidate that scores as much as the last of the exact answers counts as one of them: where
    vectors are equal, which of them exact search names is chance.

    Args:
        vectors: `[num_candidates, dimension]`.
        exact: Answers to the same queries.
        found: `[num_queries, k]`, -1 where nothing was.
    """
    shares = np.zeros(len(found), np.float32)
    for row, (candidates, query, scores) in enumerate(
        zip(found, exact.queries, exact.scores, strict=True)
    ):
        least = scores[-1] - _ROUNDING * np.abs(scores).max()
        found_scores = vectors[candidates[candidates >= 0]] @ query
        shares[row] = np.count_nonzero(found_scores >= least) / exact.k
    return shares


def search_in_batches(index: SearchIndex, queries: Vectors, k: int) -> Iterator[Indices]:
    """Yields what an index finds, `[batch, k]` for each batch of queries."""
    search = served_search(index.search, queries.shape[1])
    for start in range(0, len(queries), QUERIES_A_BATCH):
        batch = tf.constant(queries[start : start + QUERIES_A_BATCH])
        yield search(batch, tf.constant(k))[0].numpy()


def served_search(
    search: Callable[[tf.Tensor, tf.Tensor], SearchResult], dimension: int
) -> tf.types.experimental.ConcreteFunction:
    """Returns a search as a graph, as it is served."""
    return tf.function(search, autograph=False).get_concrete_function(
        tf.TensorSpec([None, dimension]), tf.TensorSpec([], tf.int32)
    )


def _answers_to_batch(vectors: Vectors, queries: Vectors, k: int) -> tuple[Indices, Vectors]:
    best = np.zeros((len(queries), 0), np.float32)
    indices = np.zeros((len(queries), 0), np.int32)
    rows = max(k, _SCORES_IN_A_BLOCK // len(queries))
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows]
        scores, places = tf.math.top_k(
            tf.matmul(queries, block, transpose_b=True), min(k, len(block))
        )
        best = np.concatenate([best, scores.numpy()], axis=1)
        indices = np.concatenate([indices, places.numpy() + start], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
    return indices.astype(np.int32), best
