from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.index_builder import recall
from components.index_builder.recall import (
    SampleQueries,
    exact_answers,
    recall_of_each,
    search_in_batches,
)
from components.index_builder.search_index import ExactIndex
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers
from tests.builders import write_examples

VECTORS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
# More than one batch of 128.
QUERIES = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)


def brute_force(k: int) -> np.ndarray:
    return np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :k]


@pytest.mark.parametrize("k", [1, 10, 50])
def test_exact_answers_equal_brute_force(k: int, monkeypatch: pytest.MonkeyPatch):
    # The smallest possible blocks of the catalogue.
    monkeypatch.setattr(recall, "_SCORES_PER_BLOCK", 1)
    exact = exact_answers(VECTORS, QUERIES, k)
    assert exact.k == k
    np.testing.assert_array_equal(exact.indices, brute_force(k))
    np.testing.assert_allclose(
        exact.scores, -np.sort(-(QUERIES @ VECTORS.T), axis=1)[:, :k], rtol=1e-4, atol=1e-5
    )


def test_k_is_limited_by_the_catalogue_and_no_queries_have_no_answers():
    assert exact_answers(VECTORS, QUERIES, 1000).indices.shape == (300, 50)
    assert exact_answers(VECTORS, QUERIES[:0], 10).indices.shape == (0, 10)


@pytest.mark.parametrize("k", [1, 10])
def test_recall_equals_brute_force(k: int):
    exact = exact_answers(VECTORS, QUERIES, k)
    # An index that sees only the first 20 candidates.
    found = np.argsort(-(QUERIES @ VECTORS[:20].T), axis=1)[:, :k]
    expected = (brute_force(k) < 20).mean(axis=1)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_allclose(recall_of_each(VECTORS, exact, found), expected, rtol=1e-6)
    found, _ = search_in_batches(ExactIndex(VECTORS).search, QUERIES, k)
    assert np.all(recall_of_each(VECTORS, exact, found) == 1.0)


def test_a_split_without_queries_is_an_error(many_towers: Any, tmp_path: Path):
    write_examples(tmp_path / "Split-eval", [])
    with pytest.raises(ValueError, match=r"measured with queries.*data-00000-of-00001\.gz"):
        read(many_towers, str(tmp_path), many_towers.ids, 10)


def test_any_of_several_equal_vectors_counts_as_right():
    longest = VECTORS[[np.linalg.norm(VECTORS, axis=1).argmax()]]
    vectors = np.concatenate([longest.repeat(10, axis=0), VECTORS[1:]])
    exact = exact_answers(vectors, longest, 3)
    assert set(exact.indices[0]) <= set(range(10))
    assert recall_of_each(vectors, exact, np.array([[7, 8, 9]])) == [1.0]
    [worst] = np.argsort(vectors @ longest[0])[:1]
    assert recall_of_each(vectors, exact, np.array([[8, 9, worst]])) == pytest.approx([2 / 3])


def read(towers: Any, examples: str, ids: list[str], count: int) -> SampleQueries:
    blocks = [
        pa.array([name.encode() for name in part], pa.binary()) for part in (ids[:100], ids[100:])
    ]
    return SampleQueries.read(
        SavedTowers(towers.directory, towers.spec),
        split_files(examples, "eval"),
        towers.spec,
        blocks,
        count,
    )


@pytest.mark.parametrize("count", [3, 10, 1000])
def test_no_query_is_for_both_tuning_and_judging(many_towers: Any, many_examples: str, count: int):
    queries = read(many_towers, many_examples, many_towers.ids, count)
    expected = min(count, len(many_towers.queries) // 2)
    assert queries.tuning.shape == queries.judging.shape == (expected, 8)
    together = np.concatenate([queries.tuning, queries.judging])
    assert len(np.unique(together, axis=0)) == 2 * expected


def test_targets_belong_to_their_query(many_towers: Any, many_examples: str):
    queries = read(many_towers, many_examples, many_towers.ids, 1000)
    # Each of the ten judging queries holds out two of the 300 candidates.
    np.testing.assert_array_equal(queries.target_rows, np.repeat(np.arange(10), 2))
    everything = np.tile(np.arange(300), (10, 1))
    assert queries.hit_rate(everything) == 1.0
    own = queries.targets.reshape(10, 2)
    assert queries.hit_rate(own[:, :1]) == 0.5
    assert queries.hit_rate(np.roll(own, 1, axis=0)) < 0.2
    ids = np.array([name.encode() for name in many_towers.ids], object)
    assert queries.hit_rate(ids[own[:, :1]]) == 0.5
    [inputs] = queries.inputs
    assert inputs["user"].numpy().tolist() == [b"user %d" % number for number in range(0, 20, 2)]


def test_candidates_outside_the_catalogue_do_not_count(many_towers: Any, many_examples: str):
    whole = read(many_towers, many_examples, many_towers.ids, 1000)
    half = read(many_towers, many_examples, many_towers.ids[:150], 1000)
    np.testing.assert_array_equal(half.targets, np.where(whole.targets < 150, whole.targets, -1))
    assert 0 < (half.targets >= 0).sum() < len(half.targets)
    assert half.hit_rate(np.tile(np.arange(150), (10, 1))) == 1.0


def test_without_held_out_events_there_is_no_hit_rate(many_towers: Any, many_examples: str):
    nothing = read(many_towers, many_examples, ["another"] * 101, 1000)
    assert math.isnan(nothing.hit_rate(np.zeros((10, 1), np.int32)))
