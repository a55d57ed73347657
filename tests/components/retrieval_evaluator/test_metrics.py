import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.retrieval_evaluator.metrics import RankMetrics, ReturnedLists, metric_names
from components.retrieval_evaluator.rankers import UNRANKED, DenseRanking


def measure(
    ranks: list[int],
    lists: list[int],
    ks: list[int],
    queries: list[int] | None = None,
    targets: list[int] | None = None,
) -> dict[str, float]:
    """Measure with one evaluation query per query, unless `queries` says otherwise."""
    metrics = RankMetrics(
        np.array(ranks, np.int64),
        np.array(lists, np.int64),
        np.array(lists if queries is None else queries, np.int64),
        None if targets is None else np.array(targets),
    )
    return {name: metrics.value(name) for name in metric_names(ks)}


def test_metrics_of_a_hand_worked_example():
    # Query 0 holds out three candidates, at ranks 1, 3 and 20; query 1 one, at rank 2.
    metrics = measure([1, 3, 20, 2], [0, 0, 0, 1], [2, 5])
    assert metrics == pytest.approx(
        {
            # Of four events, ranks 1 and 2 are within 2, and rank 3 within 5.
            "hit_rate@2": 2 / 4,
            "hit_rate@5": 3 / 4,
            "mrr@2": (1 + 1 / 2) / 4,
            "mrr@5": (1 + 1 / 3 + 1 / 2) / 4,
            # 1 / log2(1 + rank): 1 at rank 1, .6309 at rank 2, .5 at rank 3.
            "ndcg@2": (1 + 0.6309298) / 4,
            "ndcg@5": (1 + 0.5 + 0.6309298) / 4,
            # Over queries: 1 of 2 and 1 of 2; then 2 of 5 and 1 of 5.
            "precision@2": (1 / 2 + 1 / 2) / 2,
            "precision@5": (2 / 5 + 1 / 5) / 2,
            # Query 0 at 2: precision 1 at rank 1, over min(2, 3). Query 1: 1/2 at rank 2, over 1.
            "map@2": (1 / 2 + 1 / 2) / 2,
            # Query 0 at 5: 1 at rank 1 and 2/3 at rank 3, over min(5, 3).
            "map@5": ((1 + 2 / 3) / 3 + 1 / 2) / 2,
            # Recall: of query 0 one of three, then two of three; of query 1 all.
            "query_hit_rate@2": (1 / 3 + 1) / 2,
            "query_hit_rate@5": (2 / 3 + 1) / 2,
            # The best answer of query 0 is at rank 1.
            "query_mrr@2": (1 + 1 / 2) / 2,
            "query_mrr@5": (1 + 1 / 2) / 2,
            # The ideal list of query 0: 1 + .6309 at k = 2, and + .5 at k = 5.
            "query_ndcg@2": (1 / 1.6309298 + 0.6309298) / 2,
            "query_ndcg@5": (1.5 / 2.1309298 + 0.6309298) / 2,
            "query_precision@2": (1 / 2 + 1 / 2) / 2,
            "query_precision@5": (2 / 5 + 1 / 5) / 2,
            "query_map@2": (1 / 2 + 1 / 2) / 2,
            "query_map@5": ((1 + 2 / 3) / 3 + 1 / 2) / 2,
        }
    )


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_chance_is_the_mean_over_all_orders_divided_by_the_best(k: int):
    # Three right answers among five candidates, one among three, and one that is not ranked.
    num_ranked, lists = np.array([5, 5, 5, 3, 0]), np.array([0, 0, 0, 1, 2])
    orders = [
        [*first, second, UNRANKED]
        for first in itertools.permutations(range(1, 6), 3)
        for second in range(1, 4)
    ]
    found = [RankMetrics(np.array(ranks), lists, lists) for ranks in orders]
    for name in metric_names([k]):
        of_event = name.startswith(("hit_rate", "mrr", "ndcg"))
        shares = []
        # Each event is the only right answer of an event metric.
        for part in [[0], [1], [2], [3]] if of_event else [[0, 1, 2], [3]]:
            values = [metrics.part(np.array(part)).value(name) for metrics in found]
            shares.append(np.mean(values) / max(values))
        assert found[0].chance(name, num_ranked) == pytest.approx(np.mean(shares))


def test_chance_has_no_value_if_nothing_is_ranked():
    metrics = RankMetrics(np.array([UNRANKED]), np.array([0]), np.array([0]))
    assert math.isnan(metrics.chance("hit_rate@1", np.array([0])))
    assert math.isnan(metrics.chance("query_mrr@1", np.array([0])))


def test_queries_have_equal_weight_however_many_evaluation_queries_they_have():
    # Query 0 has three evaluation queries and one hit, query 1 has one of each.
    metrics = measure([1, 9, 9, 2], [0, 1, 2, 3], [5], queries=[0, 0, 0, 1])
    assert metrics["hit_rate@5"] == 2 / 4
    assert metrics["query_hit_rate@5"] == pytest.approx((1 / 3 + 1) / 2)
    assert metrics["precision@5"] == pytest.approx(2 / 4 / 5)
    assert metrics["query_precision@5"] == pytest.approx((1 / 3 + 1) / 2 / 5)
    assert metrics["map@5"] == metrics["mrr@5"] == pytest.approx((1 + 1 / 2) / 4)


def test_a_candidate_held_out_twice_is_one_right_answer_in_a_list():
    metrics = measure([1, 1, 7, 9, 9], [0, 0, 0, 1, 1], [1], targets=[4, 4, 5, -1, -1])
    assert metrics["hit_rate@1"] == pytest.approx(2 / 5)
    assert metrics["precision@1"] == 1 / 2
    # One of two right answers in the first list, none of two unknown ones in the second.
    assert metrics["query_hit_rate@1"] == 1 / 4


def test_unranked_targets_are_misses():
    metrics = measure([UNRANKED, UNRANKED], [0, 1], [1, 10_000])
    assert set(metrics.values()) == {0.0}


def test_queries_without_held_out_events_do_not_count():
    # Queries 1 to 4 have no held-out events.
    assert measure([1, 1], [0, 5], [1])["precision@1"] == 1.0


def test_without_events_every_metric_is_nan():
    metrics = measure([], [], [1, 10])
    assert list(metrics) == metric_names([1, 10])
    assert all(math.isnan(value) for value in metrics.values())


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(
        st.integers(0, 6), st.sets(st.integers(1, 12), min_size=1, max_size=6), min_size=1
    ),
    st.integers(1, 12),
)
def test_equals_metrics_computed_list_by_list(right: dict[int, set[int]], k: int):
    events = [(query, rank) for query, at in right.items() for rank in at]
    metrics = measure([rank for _, rank in events], [query for query, _ in events], [k])
    precisions, average_precisions = [], []
    for at in right.values():
        is_right = [rank in at for rank in range(1, k + 1)]
        precisions.append(sum(is_right) / k)
        cumulated = [sum(is_right[:n]) / n for n in range(1, k + 1)]
        gained = [p for p, hit in zip(cumulated, is_right, strict=True) if hit]
        average_precisions.append(sum(gained) / min(k, len(at)))
    hits = [rank for _, rank in events if rank <= k]
    over_events = {name: metrics[name] for name in metrics if not name.startswith("query_")}
    assert over_events == pytest.approx(
        {
            f"hit_rate@{k}": len(hits) / len(events),
            f"mrr@{k}": sum(1 / rank for rank in hits) / len(events),
            f"ndcg@{k}": sum(1 / math.log2(1 + rank) for rank in hits) / len(events),
            f"precision@{k}": np.mean(precisions),
            f"map@{k}": np.mean(average_precisions),
        }
    )


def lists_measured(
    scores: list[list[float]], ks: list[int], counts: list[int], history: float = 2.0
) -> dict[str, float]:
    lists = ReturnedLists(ks, len(counts))
    lists.add(*DenseRanking(np.array(scores, np.float32)).best(lists.longest))
    return lists.metrics(np.array(counts), history)


def test_list_metrics_of_a_hand_worked_example():
    # First answers: 0 and 0; first two: 0, 1 and 0, 2.
    metrics = lists_measured([[4, 3, 2, 1], [4, 1, 3, 2]], [1, 2], [5, 1, 1, 1])
    # p = (c + 1) / (8 + 4): one half for 0, a sixth for the others.
    assert metrics == pytest.approx(
        {
            "coverage@1": 1 / 4,
            "coverage@2": 3 / 4,
            # x = 0, 0, 0, 2: 3 · 2 / (4 · 2). x = 0, 1, 1, 2: (-1 + 1 + 6) / (4 · 4).
            "gini@1": 3 / 4,
            "gini@2": 6 / 16,
            # Each list has 0, and another list has 0; 1 and 2 are in one list each.
            "overlap@1": 1.0,
            "overlap@2": 2 / 4,
            "novelty@1": 1.0,
            "novelty@2": (2 * 1.0 + 2 * np.log2(6)) / 4,
            "popularity_lift@1": 5 / 2 - 1,
            "popularity_lift@2": (5 + 1 + 5 + 1) / 4 / 2 - 1,
        }
    )


def test_excluded_candidates_are_not_returned():
    metrics = lists_measured([[-np.inf, 1.0, -np.inf]], [1, 3, 10], [1, 1, 1])
    assert [metrics[f"coverage@{k}"] for k in (1, 3, 10)] == pytest.approx([1 / 3] * 3)


def test_gini_is_zero_if_all_are_returned_equally_often():
    assert lists_measured(np.eye(4).tolist(), [1], [1] * 4)["gini@1"] == 0.0


def test_list_metrics_without_lists_are_nan():
    metrics = ReturnedLists([1], 2).metrics(np.array([1, 2]), 0.0)
    assert np.isnan(metrics["gini@1"])
    assert metrics["coverage@1"] == 0.0
    assert np.isnan(metrics["popularity_lift@1"])


def test_events_count_by_their_weights():
    metrics = RankMetrics(
        np.array([1, 9, 2]),
        np.array([0, 1, 2]),
        np.array([0, 0, 1]),
        weights=np.array([5.0, 1.0, 2.0]),
    )
    assert metrics.value("hit_rate@1") == pytest.approx(5 / 8)
    assert metrics.value("mrr@5") == pytest.approx((5 + 2 / 2) / 8)
    assert metrics.part(np.array([1, 2])).value("hit_rate@5") == pytest.approx(2 / 3)
    # Right answers of a list are right or not.
    assert metrics.value("precision@1") == pytest.approx(1 / 3)
