"""Metrics from ranks.

Over held-out events, each with one right answer: hit rate, MRR, NDCG. Over queries: precision
and MAP. With one right answer a case, hit rate is recall, and the ideal DCG is one.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt


def metrics_at(
    ranks: npt.NDArray[np.int64], queries: npt.NDArray[np.int64], ks: Sequence[int]
) -> dict[str, float]:
    """Returns hit_rate@k, mrr@k, ndcg@k, precision@k and map@k for each k.

    Args:
        ranks: `[num_events]` from 1, of the held-out candidates.
        queries: `[num_events]` number of the query of each event, from 0.
        ks: Cut-offs.

    References:
        Järvelin, Kekäläinen. Cumulated Gain-Based Evaluation of IR Techniques. TOIS 2002.
        MAP as in trec_eval, cut at k, divided by min(k, number of right answers).
    """
    if len(ranks) == 0:
        return {name: float("nan") for name in metric_names(ks)}
    reciprocal = 1.0 / ranks.astype(np.float64)
    gain = 1.0 / np.log2(1.0 + ranks.astype(np.float64))
    num_targets = np.bincount(queries)
    asked = num_targets > 0
    metrics: dict[str, float] = {}
    for k in ks:
        hit = ranks <= k
        hits = np.bincount(queries, weights=hit, minlength=len(num_targets))
        precision_sums = _precision_sums(ranks[hit], queries[hit], len(num_targets))
        metrics[f"hit_rate@{k}"] = float(hit.mean())
        metrics[f"mrr@{k}"] = float((reciprocal * hit).mean())
        metrics[f"ndcg@{k}"] = float((gain * hit).mean())
        metrics[f"precision@{k}"] = float(hits[asked].mean() / k)
        metrics[f"map@{k}"] = float(
            (precision_sums[asked] / np.minimum(k, num_targets[asked])).mean()
        )
    return metrics


def metric_names(ks: Iterable[int]) -> list[str]:
    """Returns the names that `metrics_at` gives, in its order."""
    return [f"{name}@{k}" for k in ks for name in ("hit_rate", "mrr", "ndcg", "precision", "map")]


def _precision_sums(
    ranks: npt.NDArray[np.int64], queries: npt.NDArray[np.int64], num_queries: int
) -> npt.NDArray[np.float64]:
    """Sums, for each query, the precision at the rank of each of its hits."""
    order = np.lexsort((ranks, queries))
    ranks, queries = ranks[order], queries[order]
    first = np.searchsorted(queries, queries)
    # The n-th hit of a query, from 1. Two events with the same target share a rank and count once
    # more only where a query holds out one candidate twice.
    nth = np.arange(len(ranks)) - first + 1
    sums = np.bincount(queries, weights=np.minimum(nth / ranks, 1.0), minlength=num_queries)
    return sums.astype(np.float64)
