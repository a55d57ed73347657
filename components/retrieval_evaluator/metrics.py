"""Metrics of the ranks of held-out events, and of the lists that a ranker returns.

An event metric is computed for each held-out event separately. A list metric is computed for the
ranked list of one evaluation query. With the protocol `rolling`, a list has one right answer; with
`from_cut`, all held-out events of the query are right answers.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

EVENT_METRICS = ("hit_rate", "mrr", "ndcg")
_LIST_METRICS = ("precision", "map")
_QUERY_METRICS = ("query_hit_rate", "query_mrr", "query_ndcg", "query_precision", "query_map")


def metric_names(ks: Iterable[int]) -> list[str]:
    """Return the names of all rank metrics for each cutoff."""
    names = (*EVENT_METRICS, *_LIST_METRICS, *_QUERY_METRICS)
    return [f"{name}@{k}" for k in ks for name in names]


class RankMetrics:
    """The rank metrics of one ranker.

    - hit_rate, mrr and ndcg are weighted means over events. Each event is the only right answer, so
      hit_rate is recall, and the ideal DCG is 1.
    - precision and map are means over lists.
    - The metrics with the prefix query_ are list metrics that are averaged over the lists of a
      query, then over queries. query_hit_rate is recall, query_mrr uses the best-ranked right
      answer, and query_ndcg divides by the ideal DCG of all right answers.

    Args:
        ranks: Rank of each held-out event, from 1 `[num_events]`.
        lists: Number of the evaluation query of each event `[num_events]`.
        queries: Number of the query of each event `[num_events]`.
        targets: Catalogue index of each event's candidate, -1 if unknown `[num_events]`. A
            candidate that is held out twice in a list is one right answer. None: all differ.
        weights: Weight of each event `[num_events]`. None: all are 1.

    References:
        Järvelin, Kekäläinen. Cumulated Gain-Based Evaluation of IR Techniques. TOIS 2002.
        MAP as in trec_eval, cut at k, divided by min(k, number of right answers).
    """

    def __init__(
        self,
        ranks: Ints,
        lists: Ints,
        queries: Ints,
        targets: Ints | None = None,
        weights: Floats | None = None,
    ) -> None:
        self._events = (ranks, lists, queries)
        self._weight = np.ones(len(ranks)) if weights is None else weights
        numbers, self._query = np.unique(queries, return_inverse=True)
        self.num_queries = len(numbers)
        self._event_rank = ranks.astype(np.float64)
        kept = np.ones(len(ranks), bool)
        if targets is not None:
            # An event is not another right answer if it repeats the one before it in this order.
            events = np.lexsort((targets, lists))
            is_same = (np.diff(lists[events]) == 0) & (np.diff(targets[events]) == 0)
            kept[events[1:]] = ~is_same | (targets[events[1:]] < 0)
        self._order = order = np.flatnonzero(kept)[np.lexsort((ranks[kept], lists[kept]))]
        _, first, self._list, self._num_right = np.unique(
            lists[order], return_index=True, return_inverse=True, return_counts=True
        )
        self._rank = self._event_rank[order]
        # Number of each right answer within its list, from 1.
        self._nth = np.arange(len(order)) - first[self._list] + 1
        self._first_rank = self._rank[first]
        self._list_query = self._query[order][first]
        most = self._num_right.max(initial=0)
        self._ideal = np.cumsum(1.0 / np.log2(1.0 + np.arange(1, most + 1)))

    def part(self, events: Ints) -> "RankMetrics":
        """Return the metrics of some of the events, given by their indices."""
        ranks, lists, queries = (of[events] for of in self._events)
        return RankMetrics(ranks, lists, queries, weights=self._weight[events])

    def values(self, names: Iterable[str]) -> dict[str, float]:
        """Return metrics by name."""
        return {name: self.value(name) for name in names}

    def value(self, name: str) -> float:
        """Return a metric by name, such as ndcg@10; NaN without events."""
        sums, weights = self.per_query(name)
        return float(sums.sum() / weights.sum()) if len(sums) else float("nan")

    def per_query(self, name: str) -> tuple[Floats, Floats]:
        """Return the contribution and the weight of each query in a metric, both `[num_queries]`.

        The metric is the sum of the contributions divided by the sum of the weights, over all
        queries or over any sample of them.
        """
        metric, _, cut = name.partition("@")
        k = int(cut)
        if metric in EVENT_METRICS:
            sums, _ = self._by_query(self._query, self._of_event(metric, k) * self._weight)
            return sums, self._by_query(self._query, self._weight)[0]
        sums, weights = self._by_query(
            self._list_query, self._of_list(metric.removeprefix("query_"), k)
        )
        if metric in _LIST_METRICS:
            return sums, weights
        return sums / weights, np.ones(len(weights))

    def chance(self, name: str, num_ranked: Ints) -> float:
        """Return the expected value of a metric for a random order, as a share of the best value.

        `num_ranked` is the number of candidates among which each event is ranked, 0 if it cannot be
        ranked `[num_events]`. The result is the mean over the events or lists that can be ranked,
        and NaN if there are none.
        """
        metric, _, cut = name.removeprefix("query_").partition("@")
        sizes = num_ranked[num_ranked > 0]
        right = np.ones(len(sizes), np.int64)
        if not name.startswith(EVENT_METRICS):
            in_lists = num_ranked[self._order]
            _, first, right = np.unique(
                self._list[in_lists > 0], return_index=True, return_counts=True
            )
            sizes = in_lists[in_lists > 0][first]
        pairs, times = np.unique(np.stack((sizes, right)), axis=1, return_counts=True)
        shares = [_chance(metric, int(cut), *pair) for pair in pairs.T.tolist()]
        return float(np.average(shares, weights=times)) if shares else float("nan")

    def _of_event(self, metric: str, k: int) -> Floats:
        hit = (self._event_rank <= k).astype(np.float64)
        if metric == "hit_rate":
            return hit
        discount = self._event_rank if metric == "mrr" else np.log2(1.0 + self._event_rank)
        return np.divide(hit, discount)

    def _of_list(self, metric: str, k: int) -> Floats:
        hit = (self._rank <= k).astype(np.float64)
        if metric == "mrr":
            best: Floats = (self._first_rank <= k) / self._first_rank
            return best
        if metric == "ndcg":
            ideal = self._ideal[np.minimum(k, self._num_right) - 1]
            return np.divide(self._sum(hit / np.log2(1.0 + self._rank)), ideal)
        if metric == "map":
            # Tied answers share the last of their ranks, so the n-th answer never ranks above n.
            precisions = self._sum(self._nth / self._rank * hit)
            return np.divide(precisions, np.minimum(k, self._num_right))
        return np.divide(self._sum(hit), k if metric == "precision" else self._num_right)

    def _sum(self, values: Floats) -> Floats:
        sums = np.bincount(self._list, weights=values, minlength=len(self._num_right))
        return sums.astype(np.float64)

    def _by_query(self, query: Ints, values: Floats) -> tuple[Floats, Floats]:
        sums = np.bincount(query, weights=values, minlength=self.num_queries)
        weights = np.bincount(query, minlength=self.num_queries)
        return sums.astype(np.float64), weights.astype(np.float64)


def _chance(metric: str, k: int, num_ranked: int, num_right: int) -> float:
    """Return the expected metric@k of a random order, divided by that of the best order."""
    ranks = np.arange(1, min(k, num_ranked) + 1)
    if metric == "mrr":
        # Probability that all candidates up to a rank are wrong.
        wrong = np.cumprod(np.maximum(1 - num_right / (num_ranked - ranks + 1), 0))
        return float(((np.append(1, wrong[:-1]) - wrong) / ranks).sum())
    gains = 1 / np.log2(1 + ranks) if metric == "ndcg" else np.ones(len(ranks))
    best = gains[:num_right].sum()
    if metric == "map":
        # Expected precision at a rank whose candidate is right.
        gains = (1 + (ranks - 1) * (num_right - 1) / max(num_ranked - 1, 1)) / ranks
    return float(num_right / num_ranked * gains.sum() / best)


class ReturnedLists:
    """Counts how often each candidate is in the first k of a list, for metrics beyond accuracy."""

    def __init__(self, ks: Sequence[int], num_candidates: int) -> None:
        self._ks = tuple(sorted(ks))
        # One row per cutoff, for the positions from the previous cutoff to this one.
        self._counts = np.zeros((len(self._ks), num_candidates), np.int64)
        self._num_lists = 0

    @property
    def longest(self) -> int:
        """The largest cutoff."""
        return self._ks[-1]

    def add(self, positions: Ints, candidates: Ints) -> None:
        """Count returned candidates; `positions` are their positions in their lists, from 0."""
        between = np.searchsorted(self._ks, positions, side="right")
        np.add.at(self._counts, (between, candidates), 1)
        self._num_lists += int(np.count_nonzero(positions == 0))

    def metrics(self, train_counts: Ints, history_popularity: float) -> dict[str, float]:
        """Return coverage@k, gini@k, overlap@k, novelty@k and popularity_lift@k for each k.

        The definitions are in docs/evaluation.md. `train_counts` has the number of training events
        of each candidate `[num_candidates]`. `EventResults` explains `history_popularity`.

        References:
            Castells, Hurley, Vargas. Novelty and Diversity in Recommender Systems. Recommender
            Systems Handbook, 2015. (coverage, Gini, self-information)
            Abdollahpouri, Mansoury, Burke, Mobasher. The Unfairness of Popularity Bias in
            Recommendation. RMSE workshop at RecSys 2019. (popularity lift)
        """
        surprise = -np.log2((train_counts + 1) / (train_counts.sum() + len(train_counts)))
        found: dict[str, float] = {}
        for k, lists in zip(self._ks, np.cumsum(self._counts, axis=0), strict=True):
            returned = lists.sum()
            mean = lists / returned if returned else np.full(len(lists), np.nan)
            found[f"coverage@{k}"] = float((lists > 0).mean())
            found[f"gini@{k}"] = _gini(lists)
            found[f"overlap@{k}"] = _overlap(lists, self._num_lists)
            found[f"novelty@{k}"] = float(mean @ surprise)
            found[f"popularity_lift@{k}"] = float(
                mean @ train_counts / history_popularity - 1.0 if history_popularity else np.nan
            )
        return found


def _gini(counts: Ints) -> float:
    total, number = counts.sum(), len(counts)
    if not total:
        return float("nan")
    order = 2 * np.arange(1, number + 1) - number - 1
    return float((order * np.sort(counts)).sum() / (number * total))


def _overlap(counts: Ints, num_lists: int) -> float:
    """Return the mean share of the other lists that contain a returned candidate."""
    pairs = counts.sum() * (num_lists - 1)
    return float((counts * (counts - 1)).sum() / pairs) if pairs > 0 else float("nan")
