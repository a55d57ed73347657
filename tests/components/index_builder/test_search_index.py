"""The contract of every search backend; exact search is the oracle."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from components.index_builder.partitioned_index import (
    BLOCK_SIZE,
    PartitionedIndex,
    PartitionedSettings,
)
from components.index_builder.restricted_search import AvailabilityFilter, restricted_search
from components.index_builder.scann_index import ScannIndex, ScannSettings
from components.index_builder.search_index import ExactIndex, SearchIndex
from models.input.availability import Availability
from models.ranking.stage import NO_SCORE

NUM, DIMENSION, K = 400, 8, 10
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Backend:
    """Builds a backend with settings that find everything, and with settings that do not."""

    name: str
    thorough: Callable[[Vectors], SearchIndex]
    hasty: Callable[[Vectors], SearchIndex]
    least: int = 1


def scann(leaves_to_search: int, reorder: int, int8: bool) -> Callable[[Vectors], SearchIndex]:
    settings = ScannSettings(8, leaves_to_search, reorder, int8)
    return lambda vectors: ScannIndex(vectors, K, settings)


def partitioned(num_leaves: int, num_blocks: int) -> Callable[[Vectors], SearchIndex]:
    return lambda vectors: PartitionedIndex(vectors, PartitionedSettings(num_leaves, num_blocks))


BACKENDS = [
    Backend("exact", ExactIndex, ExactIndex),
    Backend("scann", scann(8, NUM, False), scann(1, K, False), least=256),
    Backend("scann_int8", scann(8, NUM, True), scann(1, K, True), least=256),
    Backend("partitioned", partitioned(8, NUM), partitioned(8, 1)),
]


def rows(count: int, seed: int = 3, dimension: int = DIMENSION) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


@functools.cache
def traced(index: SearchIndex, dimension: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Trace a search as in the served graph, with unknown batch and count."""
    signature = [tf.TensorSpec([None, dimension]), tf.TensorSpec([], tf.int32)]
    return tf.function(index.search, signature, autograph=False)


def search(index: SearchIndex, queries: Vectors, count: int) -> tuple[Vectors, Vectors]:
    indices, scores = traced(index, queries.shape[1])(tf.constant(queries), tf.constant(count))
    assert indices.dtype == tf.int32
    assert scores.dtype == tf.float32
    return indices.numpy(), scores.numpy()


@pytest.fixture(scope="module", params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    return request.param


@pytest.fixture(scope="module")
def thorough(backend: Backend) -> SearchIndex:
    return backend.thorough(rows(NUM))


@pytest.fixture(scope="module")
def hasty(backend: Backend) -> SearchIndex:
    return backend.hasty(rows(NUM))


def tolerance(backend: Backend) -> float:
    """Return the absolute tolerance; one byte per coordinate rounds to 1/127 of the largest."""
    return 0.15 if backend.name == "scann_int8" else 1e-4


def assert_valid(
    indices: Vectors, scores: Vectors, vectors: Vectors, queries: Vectors, atol: float
) -> None:
    for row, row_scores, query in zip(indices, scores, queries, strict=True):
        assert len(set(row)) == len(row)
        assert np.all(row >= 0)
        assert np.all(row < len(vectors))
        assert np.all(np.isfinite(row_scores))
        assert np.all(np.diff(row_scores) <= 0)
        np.testing.assert_allclose(row_scores, vectors[row] @ query, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("batch", [0, 1, 2, 300])
@pytest.mark.parametrize("count", [1, K, NUM - 1, NUM])
def test_results_are_complete_different_finite_and_best_first(
    backend: Backend, thorough: SearchIndex, hasty: SearchIndex, batch: int, count: int
):
    queries = rows(batch, seed=4)
    for index in (thorough, hasty):
        indices, scores = search(index, queries, count)
        assert indices.shape == scores.shape == (batch, count)
        assert_valid(indices, scores, rows(NUM), queries, tolerance(backend))


def test_a_thorough_search_equals_exact_search(backend: Backend, thorough: SearchIndex):
    queries = rows(50, seed=5)
    for count in (K, NUM):
        expected = search(ExactIndex(rows(NUM)), queries, count)
        indices, scores = search(thorough, queries, count)
        np.testing.assert_allclose(scores, expected[1], rtol=1e-4, atol=tolerance(backend))
        if backend.name != "scann_int8":
            np.testing.assert_array_equal(indices, expected[0])


def test_only_available_candidates_are_found(backend: Backend, thorough: SearchIndex):
    rng = np.random.default_rng(12)
    start = rng.integers(0, 100, NUM)
    times = Availability(start, start + rng.integers(1, 60, NUM))
    available, now = AvailabilityFilter(times), np.array([10, 75, 140])
    queries = rows(3, seed=9)

    @tf.function(autograph=False)
    def find(given: tf.Tensor, moments: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        nothing = tf.zeros([3, 0], tf.int32)
        return restricted_search(thorough, given, K, nothing, [(available, moments)])

    indices, scores = find(tf.constant(queries), tf.constant(now))
    best = np.where(times.at(now[:, None]), queries @ rows(NUM).T, NO_SCORE)
    expected = -np.sort(-best, axis=1)[:, :K]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=tolerance(backend))
    is_found = scores.numpy() > NO_SCORE
    assert times.at(now[:, None])[np.nonzero(is_found)[0], indices.numpy()[is_found]].all()


def test_the_result_of_a_row_does_not_depend_on_the_batch(
    backend: Backend, thorough: SearchIndex, hasty: SearchIndex
):
    # ScaNN ranks leaves slightly differently for a batch than for a single query.
    index = thorough if backend.name.startswith("scann") else hasty
    queries = rows(40, seed=6)
    together, _ = search(index, queries, K)
    for row in (0, 17, 39):
        alone, _ = search(index, queries[row : row + 1], K)
        np.testing.assert_array_equal(alone[0], together[row])


def test_the_length_of_a_query_only_scales_the_scores(hasty: SearchIndex):
    queries = rows(20, seed=7)
    indices, scores = search(hasty, queries, K)
    same_indices, longer = search(hasty, 8 * queries, K)
    np.testing.assert_array_equal(same_indices, indices)
    np.testing.assert_allclose(longer, 8 * scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_small_catalogue_is_returned_completely(backend: Backend, count: int):
    if count < backend.least:
        pytest.skip("IndexBuilder uses exact search for so few candidates")
    vectors, queries = rows(count), rows(3, seed=8)
    for index in (backend.thorough(vectors), backend.hasty(vectors)):
        indices, scores = search(index, queries, count)
        assert indices.shape == (3, count)
        assert_valid(indices, scores, vectors, queries, tolerance(backend))


@pytest.mark.parametrize("count", [K, NUM])
def test_excluded_candidates_score_lowest_and_the_others_are_complete(
    backend: Backend, thorough: SearchIndex, hasty: SearchIndex, count: int
):
    queries, rng = rows(30, seed=13), np.random.default_rng(13)
    exclude = rng.integers(-1, NUM, (30, 40)).astype(np.int32)
    exclude[0] = -1
    exclude[1, :30] = np.argsort(-rows(NUM) @ queries[1])[:30]
    for index in (thorough, hasty):
        found = index.search_except(tf.constant(queries), tf.constant(count), tf.constant(exclude))
        indices, scores = (part.numpy() for part in found)
        for row, hidden in enumerate(exclude):
            is_hidden = np.isin(indices[row], hidden)
            assert np.all(scores[row][is_hidden] == NO_SCORE)
            order = np.argsort(-scores[row][~is_hidden])
            kept = indices[row][~is_hidden][order], scores[row][~is_hidden][order]
            assert len(kept[0]) >= min(count, NUM - len(set(hidden) - {-1}))
            one = slice(row, row + 1)
            assert_valid(kept[0][None], kept[1][None], rows(NUM), queries[one], tolerance(backend))
    empty = tf.zeros([0, 3], tf.int32)
    assert hasty.search_except(tf.zeros([0, DIMENSION]), tf.constant(K), empty)[0].shape[0] == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_vectors_are_found_once_each(backend: Backend, value: float):
    vectors = rows(300)
    vectors[:200] = value
    vectors[200:220] = vectors[220:240]
    queries = np.concatenate([np.ones([1, DIMENSION], np.float32), rows(4, seed=9)])
    for index in (backend.thorough(vectors), backend.hasty(vectors)):
        for count in (K, 300):
            indices, scores = search(index, queries, count)
            assert_valid(indices, scores, vectors, queries, tolerance(backend))


def test_vectors_and_scores_are_in_index_order(backend: Backend, thorough: SearchIndex):
    indices, atol = np.array([[0, 17], [NUM - 1, 17]]), tolerance(backend)
    stored = thorough.vectors_at(tf.constant(indices))
    np.testing.assert_allclose(stored, rows(NUM)[indices], atol=atol / 5)
    queries = rows(3, seed=10)
    scores = thorough.scores_of_all(tf.constant(queries))
    np.testing.assert_allclose(scores, queries @ rows(NUM).T, rtol=1e-4, atol=atol)
    assert thorough.num_candidates == NUM


def test_a_session_without_python_gives_the_same_results(hasty: SearchIndex, tmp_path: Path):
    """TensorFlow Serving uses a Session, in which the ScaNN searcher is rebuilt."""
    search_of = tf.function(
        lambda queries: dict(zip(("indices", "scores"), hasty.search(queries, K), strict=True)),
        [tf.TensorSpec([None, DIMENSION], name="queries")],
        autograph=False,
    )
    module = tf.Module()
    module.index = hasty
    path = str(tmp_path / "1")
    tf.saved_model.save(module, path, signatures=search_of.get_concrete_function())
    queries = rows(5, seed=12)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
        signature = loaded.signature_def["serving_default"]
        feed = signature.inputs["queries"].name
        fetches = [signature.outputs[name].name for name in ("indices", "scores")]
        call = session._make_callable_from_options(
            config_pb2.CallableOptions(feed=[feed], fetch=fetches)
        )
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(queries[0])  # not a batch
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(queries[:, :-1])
        indices, scores = call(queries)
    expected = search(hasty, queries, K)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-5, atol=1e-5)


def test_the_same_vectors_give_the_same_index(backend: Backend, hasty: SearchIndex):
    if backend.name.startswith("scann"):
        pytest.skip("ScaNN has no seed, so its index differs between builds")
    queries = rows(30, seed=11)
    again = search(backend.hasty(rows(NUM)), queries, K)
    np.testing.assert_array_equal(search(hasty, queries, K)[0], again[0])


def test_hasty_settings_miss_some_of_the_best():
    """If the hasty settings were thorough, the tests above would prove little."""
    vectors, queries = rows(NUM), rows(50, seed=5)
    expected, _ = search(ExactIndex(vectors), queries, K)
    for backend in BACKENDS[1:]:
        found, _ = search(backend.hasty(vectors), queries, K)
        recall = np.mean(
            [len(np.intersect1d(*pair)) / K for pair in zip(expected, found, strict=True)]
        )
        assert 0.2 < recall < 0.97, backend.name
    assert BLOCK_SIZE < NUM


def test_reading_vectors_does_not_make_later_searches_copy_them():
    # ResourceGather permanently switches a variable to copy-on-read.
    index = ExactIndex(np.zeros([4, 2], np.float32))
    traced = tf.function(index.vectors_at).get_concrete_function(tf.TensorSpec([None], tf.int32))
    assert "ResourceGather" not in {op.type for op in traced.graph.get_operations()}
