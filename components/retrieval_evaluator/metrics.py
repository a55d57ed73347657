"""Metrics from ranks.

A held-out event is one right answer to one question. Metrics over events look at each event by
itself; those over questions and over queries look at each question's list of answers. A question
has one right answer where the protocol is rolling, and all held-out events of its query where it
is `from_cut`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

EVENT_METRICS = ("hit_rate", "mrr", "ndcg")
_LIST_METRICS = ("precision", "map")
_QUERY_METRICS = ("query_hit_rate", "query_mrr", "query_ndcg", "query_precision", "query_map")


class RankMetrics:
    """The metrics of one contender.

    Over events: hit_rate (with one right answer, recall), mrr, ndcg (the ideal DCG is one).
    Over questions: precision and map. Over queries: the standard metrics of each question's list,
    averaged over the questions of a query, then over queries: query_hit_rate is recall, query_mrr
    looks at the best right answer, query_ndcg has the ideal DCG of all right answers.

    Args:
        ranks: `[num_events]` from 1, of the held-out candidates.
        questions: `[num_events]` number of the question of each event, from 0.
        queries: `[num_events]` number of the query of each event, from 0.
        is_repeated: `[num_events]` whether the question holds this candidate out once more, before
            this event; such an event is no further right answer in a list. None: none is.

    References:
        Järvelin, Kekäläinen. Cumulated Gain-Based Evaluation of IR Techniques. TOIS 2002.
        MAP as in trec_eval, cut at k, divided by min(k, number of right answers).
    """

    def __init__(
        self, ranks: Ints, questions: Ints, queries: Ints, is_repeated: Bools | None = None
    ) -> None:
        numbers, self._query = np.unique(queries, return_inverse=True)
        self._num_queries = len(numbers)
        self._event_rank = ranks.astype(np.float64)
        kept = np.ones(len(ranks), bool) if is_repeated is None else ~is_repeated
        order = np.flatnonzero(kept)[np.lexsort((ranks[kept], questions[kept]))]
        _, first, self._question, self._num_right = np.unique(
            questions[order], return_index=True, return_inverse=True, return_counts=True
        )
        self._rank = self._event_rank[order]
        # The n-th right answer of its question, from 1.
        self._nth = np.arange(len(order)) - first[self._question] + 1
        self._first_rank = self._rank[first]
        self._question_query = self._query[order][first]
        most = self._num_right.max(initial=0)
        self._ideal = np.cumsum(1.0 / np.log2(1.0 + np.arange(1, most + 1)))

    def value(self, name: str) -> float:
        """Returns a metric by name; not a number without events."""
        sums, weights = self.per_query(name)
        return float(sums.sum() / weights.sum()) if len(sums) else float("nan")

    def per_query(self, name: str) -> tuple[Floats, Floats]:
        """Returns what each query adds to a metric, and its weight in it.

        The metric is the sum of the first divided by the sum of the second, over all queries or
        over any sample of them.

        Args:
            name: Such as ndcg@10 or query_map@5.

        Returns:
            Two arrays [num_queries], queries in the order of their numbers.
        """
        metric, _, cut = name.partition("@")
        k = int(cut)
        if metric in EVENT_METRICS:
            return self._by_query(self._query, self._of_event(metric, k))
        of_list = self._of_list(metric.removeprefix("query_"), k)
        sums, weights = self._by_query(self._question_query, of_list)
        if metric in _LIST_METRICS:
            return sums, weights
        return sums / weights, np.ones(len(weights))

    def _of_event(self, metric: str, k: int) -> Floats:
        hit = (self._event_rank <= k).astype(np.float64)
        if metric == "hit_rate":
            return hit
        if metric == "mrr":
            return np.divide(hit, self._event_rank)
        return np.divide(hit, np.log2(1.0 + self._event_rank))

    def _of_list(self, metric: str, k: int) -> Floats:
        hit = (self._rank <= k).astype(np.float64)
        if metric == "mrr":
            best: Floats = (self._first_rank <= k) / self._first_rank
            return best
        if metric == "ndcg":
            ideal: Floats = self._ideal[np.minimum(k, self._num_right) - 1]
            gained: Floats = self._sum(hit / np.log2(1.0 + self._rank)) / ideal
            return gained
        if metric == "map":
            # Tied answers share the rank of the last of them: the n-th is never before place n.
            precisions = self._sum(self._nth / self._rank * hit)
            return np.divide(precisions, np.minimum(k, self._num_right))
        hits = self._sum(hit)
        return np.divide(hits, k if metric == "precision" else self._num_right)

    def _sum(self, values: Floats) -> Floats:
        number = len(self._num_right)
        return np.bincount(self._question, weights=values, minlength=number).astype(np.float64)

    def _by_query(self, query: Ints, values: Floats) -> tuple[Floats, Floats]:
        sums = np.bincount(query, weights=values, minlength=self._num_queries)
        return sums.astype(np.float64), np.bincount(query, minlength=self._num_queries).astype(
            np.float64
        )


def metrics_at(
    ranks: Ints,
    questions: Ints,
    queries: Ints,
    ks: Sequence[int],
    is_repeated: Bools | None = None,
) -> dict[str, float]:
    """Returns every metric for each k, in the order of `metric_names`; as `RankMetrics` tells."""
    metrics = RankMetrics(ranks, questions, queries, is_repeated)
    return {name: metrics.value(name) for name in metric_names(ks)}


def metric_names(ks: Iterable[int]) -> list[str]:
    """Returns the names that `metrics_at` gives, in its order."""
    names = (*EVENT_METRICS, *_LIST_METRICS, *_QUERY_METRICS)
    return [f"{name}@{k}" for k in ks for name in names]
