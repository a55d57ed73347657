"""Quality of a ranker on events that it has not learned from, and the importance of features."""

from collections.abc import Callable, Mapping
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Floats = npt.NDArray[np.float32]
Gains = npt.NDArray[np.float64]

_K = 10
_QUERIES_PER_BATCH = 512
# The normal distribution has 95% of its mass within this many standard deviations.
_DEVIATIONS = 1.96


def measure(
    score: Callable[[tf.Tensor], tf.Tensor],
    features: Floats,
    is_candidate: npt.NDArray[np.bool_],
    columns: Mapping[str, slice],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return ndcg@10 by the ranker and by the retriever, and the loss without each feature.

    A feature's importance is how much ndcg@10 falls if its values are shuffled among all
    candidates, with a 95% interval over the queries. Correlated features can replace each other,
    so each of them may have a small one.

    Args:
        score: The ranker.
        features: Lists of candidates, the right one first `[num_queries, n, num_features]`.
        is_candidate: False for padding `[num_queries, n]`.
        columns: Columns of each feature by its name.
        rng: Generator of the order of shuffled values.

    References:
        Breiman. Random Forests. Machine Learning, 2001. (permutation importance)
    """

    def gains(values: Floats) -> Gains:
        batches = range(0, len(values), _QUERIES_PER_BATCH)
        parts = [score(tf.constant(values[i : i + _QUERIES_PER_BATCH])).numpy() for i in batches]
        return _gains(np.concatenate(parts), is_candidate)

    ranked = gains(features)
    importance = {}
    for name, column in columns.items():
        shuffled = features.copy()
        shuffled[is_candidate, column] = rng.permutation(features[is_candidate][:, column])
        loss = ranked - gains(shuffled)
        error = float(_DEVIATIONS * loss.std() / np.sqrt(len(loss)))
        mean = float(loss.mean())
        importance[name] = {"value": mean, "low": mean - error, "high": mean + error}
    retrieved = _gains(features[:, :, columns["score"].start], is_candidate)
    return {
        "queries": len(features),
        f"ndcg@{_K}": {"ranked": float(ranked.mean()), "retrieved": float(retrieved.mean())},
        "importance": dict(sorted(importance.items(), key=lambda item: -item[1]["value"])),
    }


def cross_norms(kernel: Floats, columns: Mapping[str, slice]) -> dict[tuple[str, str], float]:
    """Return the weights of the products of two features in a cross layer, largest first.

    The weight of a pair is the Frobenius norm of its blocks in the kernel `[num_inputs,
    num_inputs]`. `columns` are the inputs of each feature by its name.

    References:
        Wang et al. DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
        Learning to Rank Systems. WWW 2021. (section 7.6)
    """
    squares = np.square(kernel, dtype=np.float64)
    norms = {}
    for pair in combinations_with_replacement(columns, 2):
        blocks = {pair, pair[::-1]}
        norms[pair] = sum(float(squares[columns[a], columns[b]].sum()) for a, b in blocks) ** 0.5
    return dict(sorted(norms.items(), key=lambda item: -item[1]))


def _gains(scores: Floats, is_candidate: npt.NDArray[np.bool_]) -> Gains:
    """Return the ndcg of each query, whose only right candidate is the first of the list."""
    ranks = np.count_nonzero((scores >= scores[:, :1]) & is_candidate, axis=1)
    return np.where(ranks <= _K, 1.0 / np.log2(1.0 + ranks), 0.0)
