import numpy as np
import pytest

from components.retrieval_evaluator.bootstrap import PairedBootstrap


def test_the_interval_of_a_mean_matches_the_normal_distribution():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, 4000)
    interval = PairedBootstrap({"x": values}, np.ones(4000), 2000, 0.95).interval("x")
    error = 1.96 * values.std() / np.sqrt(4000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_paired_rankers_can_differ_although_their_intervals_overlap():
    rng = np.random.default_rng(1)
    hard = rng.normal(0.0, 1.0, 500)  # the difficulty of a query, for both
    sums = {"a": hard + 0.05, "b": hard + rng.normal(0.0, 0.1, 500)}
    bootstrap = PairedBootstrap(sums, np.ones(500), 1000, 0.95)
    assert bootstrap.interval("a").low < bootstrap.interval("b").high
    assert bootstrap.difference("a", "b", 1.0).low > 0


def test_queries_are_resampled_rather_than_events():
    # Two queries of a thousand events each: one hits all, one nothing.
    bootstrap = PairedBootstrap({"x": np.array([1000.0, 0.0])}, np.array([1000.0] * 2), 500, 0.95)
    interval = bootstrap.interval("x")
    assert (interval.value, interval.low, interval.high) == (0.5, 0.0, 1.0)


def test_weights_are_resampled_with_their_queries():
    sums, weights = np.array([1.0, 6.0]), np.array([1.0, 6.0])
    interval = PairedBootstrap({"x": sums}, weights, 100, 0.95).interval("x")
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_a_factor_requires_a_lift():
    bootstrap = PairedBootstrap({"a": np.full(9, 3.0), "b": np.full(9, 2.0)}, np.ones(9), 100, 0.9)
    assert bootstrap.difference("a", "b", 1.5).value == pytest.approx(0.0)
    assert bootstrap.difference("a", "b", 1.0).low == pytest.approx(1.0)


def test_the_interval_is_reproducible():
    values = np.random.default_rng(2).random(50)
    first, second = (PairedBootstrap({"x": values}, np.ones(50), 100, 0.95) for _ in range(2))
    assert first.interval("x") == second.interval("x")


def test_the_interval_without_queries_is_nan():
    interval = PairedBootstrap({"x": np.zeros(0)}, np.zeros(0), 100, 0.95).interval("x")
    assert np.isnan([interval.value, interval.low, interval.high]).all()
