"""How many of the exact answers an index finds."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.exact_index import ExactIndex
from components.index_builder.search_index import SearchIndex

_QUERIES_A_BATCH = 128


def measure_recall(
    index: SearchIndex,
    vectors: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    k: int,
) -> float:
    """Returns the share of the exact k nearest candidates that `index` finds too.

    Args:
        index: Over `vectors`.
        vectors: `[num_candidates, dimension]`.
        queries: `[num_queries, dimension]`, of the query tower for real queries: they lie
            elsewhere than the candidates, and an index that is good for the one can be bad for
            the other.
        k: Neighbours that are compared.
    """
    count = tf.constant(min(k, len(vectors)))
    exact = ExactIndex(vectors)
    found = 0
    for start in range(0, len(queries), _QUERIES_A_BATCH):
        batch = tf.constant(queries[start : start + _QUERIES_A_BATCH])
        expected, actual = exact.search(batch, count)[0], index.search(batch, count)[0]
        pairs = zip(expected.numpy(), actual.numpy(), strict=True)
        found += sum(len(np.intersect1d(right, answer)) for right, answer in pairs)
    return found / (len(queries) * int(count))
