import numpy as np
import pytest

from components.retrieval_evaluator.metrics import RankMetrics
from components.retrieval_evaluator.slices import (
    candidate_labels,
    feature_labels,
    popularity_labels,
    slice_metrics,
)


def test_head_is_the_most_popular_fifth_with_training_events():
    counts = np.array([1, 9, 0, 5, 2, 1, 1, 1, 1, 1])
    labels = popularity_labels(np.array([1, 3, 4, -1]), counts)
    assert labels.tolist() == ["head", "head", "tail", "tail"]
    assert popularity_labels(np.array([0, 1]), np.array([0, 0])).tolist() == ["tail", "tail"]


def test_candidates_are_warm_cold_or_unknown():
    labels = candidate_labels(np.array([0, 1, -1]), np.array([3, 0]))
    assert labels.tolist() == ["warm", "cold", "unknown"]


def test_missing_and_rare_feature_values_have_slices_of_their_own():
    values = np.array([b"", "ü".encode(), *[str(n % 20).encode() for n in range(40)]], object)
    labels = feature_labels(values)
    assert labels[0] == "(other)"
    assert labels[1] == "(other)"
    assert set(labels[2:]) == {str(n) for n in range(20)}
    assert feature_labels(np.array([b"", "ü".encode()], object)).tolist() == ["(missing)", "ü"]
    odd = [b"a", b"a\0", b"a\n", b"[/a]"]
    assert feature_labels(np.array(odd, object)).tolist() == [value.decode() for value in odd]
    assert feature_labels(np.zeros(0, object)).tolist() == []


def test_each_slice_measures_its_own_events():
    found = slice_metrics(
        {"repeat": np.array(["new", "repeat", "new"], object)},
        {"model": RankMetrics(np.array([1, 3, 9]), np.array([0, 1, 2]), np.array([0, 0, 1]))},
        ks=[2, 5],
    )
    assert set(found["repeat"]) == {"new", "repeat"}
    assert found["repeat"]["new"]["num_events"] == 2
    assert found["repeat"]["new"]["num_queries"] == 2
    assert found["repeat"]["new"]["metrics"]["model"]["hit_rate@2"] == 0.5
    assert found["repeat"]["repeat"]["metrics"]["model"] == pytest.approx(
        {"hit_rate@2": 0, "mrr@2": 0, "ndcg@2": 0, "hit_rate@5": 1, "mrr@5": 1 / 3, "ndcg@5": 0.5}
    )
