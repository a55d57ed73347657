"""Matrix factorization of labels: it finds known biases and factors, and shrinks rare ones."""

from __future__ import annotations

import numpy as np
import pytest

from models.ranking.estimates import Estimates

NUM_QUERIES, NUM_CANDIDATES = 60, 40


def predictions(estimates: Estimates) -> np.ndarray:
    """Return the estimates of all pairs `[num_queries + 1, num_candidates + 1]`."""
    of_queries, of_candidates = estimates.queries, estimates.candidates
    biases = of_queries[:, None, 0] + of_candidates[None, :, 0]
    return np.asarray(estimates.mean + biases + of_queries[:, 1:] @ of_candidates[:, 1:].T)


def test_labels_of_other_events_are_explained_by_biases_and_factors():
    rng = np.random.default_rng(1)
    biases = rng.normal(0, 0.5, NUM_QUERIES)[:, None] + rng.normal(0, 0.5, NUM_CANDIDATES)
    factors = rng.normal(size=(NUM_QUERIES, 2)) @ rng.normal(size=(NUM_CANDIDATES, 2)).T
    labels = 3.0 + biases + factors + rng.normal(0, 0.1, factors.shape)
    is_known = rng.random(labels.shape) < 0.5
    queries, candidates = np.nonzero(is_known)
    fitted = Estimates.fit(
        queries, candidates, labels[is_known], NUM_QUERIES, NUM_CANDIDATES, num_factors=4
    )
    errors = (predictions(fitted)[:-1, :-1] - labels)[~is_known]
    assert np.sqrt(np.mean(errors**2)) < 0.2 < labels.std()
    alone = Estimates.fit(
        queries, candidates, labels[is_known], NUM_QUERIES, NUM_CANDIDATES, num_factors=0
    )
    assert alone.queries.shape == (NUM_QUERIES + 1, 1)
    errors = (predictions(alone)[:-1, :-1] - labels)[~is_known]
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(factors.std(), rel=0.2)


def test_rare_and_unknown_queries_and_candidates_are_near_the_mean():
    rng = np.random.default_rng(1)
    # Query 1 has a single event, and candidates from 20 on have none.
    queries = np.append(rng.integers(2, NUM_QUERIES, 2000), [0] * 200 + [1])
    levels = np.append([1.0, 1.0], rng.normal(0, 0.5, NUM_QUERIES - 2))
    labels = levels[queries] + rng.normal(0, 0.5, len(queries))
    labels[-1] = 1.0
    candidates = rng.integers(0, 20, len(queries))
    fitted = Estimates.fit(queries, candidates, labels, NUM_QUERIES, NUM_CANDIDATES)
    found = predictions(fitted)
    assert found[0, :20].mean() > 0.9 > found[1, :20].mean() > fitted.mean + 0.1
    assert found[-1, -1] == pytest.approx(fitted.mean)
    assert found[0, 30] == pytest.approx(found[0, -1], abs=0.01)


def test_candidates_are_reordered_for_a_catalogue():
    fitted = Estimates.fit(np.array([0, 0, 1]), np.array([0, 1, 2]), np.array([1.0, 2, 3]), 2, 3)
    moved = fitted.reordered(np.array([2, -1, 0]))
    np.testing.assert_array_equal(moved.candidates, fitted.candidates[[2, 3, 0]])
    assert not moved.candidates[1].any()


def test_no_label_is_the_mean_of_nothing():
    fitted = Estimates.fit(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 2, 3)
    assert not predictions(fitted)[-1].any()
