"""Metrics from ranks.

A held-out event is one right answer to one question. Metrics over events look at each event by
itself; those over queries at each question's list of answers, first averaged over the questions of
a query and then over the queries. A question has one right answer where the protocol is rolling,
and all held-out events of its query where it is `from_cut`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

EVENT_METRICS = ("hit_rate", "mrr", "ndcg")
LIST_METRICS = ("precision", "map")
QUERY_METRICS = ("query_hit_rate", "query_mrr", "query_ndcg", "query_precision", "query_map")


def metrics_at(
    ranks: Ints,
    questions: Ints,
    queries: Ints,
    ks: Sequence[int],
    is_repeated: npt.NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Returns every metric for each k, in the order of `metric_names`.

    Over events: hit_rate (with one right answer, recall), mrr, ndcg (the ideal DCG is one).
    Over questions: precision and map. Over queries: the standard metrics of each question's list,
    averaged over the questions of a query, then over queries: query_hit_rate is recall, query_mrr
    looks at the best right answer, query_ndcg has the ideal DCG of all right answers.

    Args:
        ranks: `[num_events]` from 1, of the held-out candidates.
        questions: `[num_events]` number of the question of each event, from 0.
        queries: `[num_events]` number of the query of each event, from 0.
        ks: Cut-offs.
        is_repeated: `[num_events]` whether the question holds this candidate out once more, before
            this event; such an event is no further right answer in a list. None: none is.

    References:
        Järvelin, Kekäläinen. Cumulated Gain-Based Evaluation of IR Techniques. TOIS 2002.
        MAP as in trec_eval, cut at k, divided by min(k, number of right answers).
    """
    if len(ranks) == 0:
        return {name: float("nan") for name in metric_names(ks)}
    lists = _Lists(ranks, questions, queries, is_repeated)
    reciprocal, gain = 1.0 / ranks, 1.0 / np.log2(1.0 + ranks)
    metrics: dict[str, float] = {}
    for k in ks:
        hit = ranks <= k
        metrics[f"hit_rate@{k}"] = float(hit.mean())
        metrics[f"mrr@{k}"] = float((reciprocal * hit).mean())
        metrics[f"ndcg@{k}"] = float((gain * hit).mean())
        metrics |= lists.metrics(k)
    return metrics


def metric_names(ks: Iterable[int]) -> list[str]:
    """Returns the names that `metrics_at` gives, in its order."""
    names = (*EVENT_METRICS, *LIST_METRICS, *QUERY_METRICS)
    return [f"{name}@{k}" for k in ks for name in names]


class _Lists:
    """The right answers of each question, sorted by rank."""

    def __init__(
        self,
        ranks: Ints,
        questions: Ints,
        queries: Ints,
        is_repeated: npt.NDArray[np.bool_] | None,
    ) -> None:
        if is_repeated is not None:
            kept = ~is_repeated
            ranks, questions, queries = ranks[kept], questions[kept], queries[kept]
        order = np.lexsort((ranks, questions))
        _, first, self._question, self._num_right = np.unique(
            questions[order], return_index=True, return_inverse=True, return_counts=True
        )
        self._rank = ranks[order].astype(np.float64)
        # The n-th right answer of its question, from 1.
        self._nth = np.arange(len(order)) - first[self._question] + 1
        self._first_rank = self._rank[first]
        _, self._query = np.unique(queries[order][first], return_inverse=True)
        self._ideal = np.cumsum(1.0 / np.log2(1.0 + np.arange(1, self._num_right.max() + 1)))

    def metrics(self, k: int) -> dict[str, float]:
        hit = self._rank <= k
        most = np.minimum(k, self._num_right)
        hits = self._sum(hit.astype(np.float64))
        # Tied answers share the rank of the last of them, so the n-th is never before place n.
        average_precision = self._sum(self._nth / self._rank * hit) / most
        dcg = self._sum(hit / np.log2(1.0 + self._rank))
        return {
            f"precision@{k}": float((hits / k).mean()),
            f"map@{k}": float(average_precision.mean()),
            f"query_hit_rate@{k}": self._over_queries(hits / self._num_right),
            f"query_mrr@{k}": self._over_queries((self._first_rank <= k) / self._first_rank),
            f"query_ndcg@{k}": self._over_queries(dcg / self._ideal[most - 1]),
            f"query_precision@{k}": self._over_queries(hits / k),
            f"query_map@{k}": self._over_queries(average_precision),
        }

    def _sum(self, values: Floats) -> Floats:
        sums: Floats = np.bincount(
            self._question, weights=values, minlength=len(self._num_right)
        ).astype(np.float64)
        return sums

    def _over_queries(self, values: Floats) -> float:
        means = np.bincount(self._query, weights=values) / np.bincount(self._query)
        return float(means.mean())
