"""Baselines without co-occurrences: popularity, recent popularity and repeated history."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.retrieval_evaluator.baselines.interface import (
    CooccurrenceScores,
    Floats,
    Histories,
    Scores,
    TrainingEvents,
)

# The weight of an event halves for every such share of the training events that is newer.
_HALF_LIFE_SHARE = 0.05


def popularity_scores(counts: npt.NDArray[Any]) -> Scores:
    """Return scores in (0, 1] that rank the candidates by `counts`, `[num_candidates]`.

    Equal counts are ordered by index to avoid ties, which count against a ranker.
    """
    order = np.lexsort((np.arange(len(counts)), -counts))
    scores = np.empty(len(counts), np.float32)
    # In (0, 1], float32 can represent the ranks of up to 16.7 million candidates.
    scores[order] = 1.0 - np.arange(len(counts), dtype=np.float64) / max(len(counts), 1)
    return scores


def recent_counts(training: TrainingEvents) -> Floats:
    """Return the training events of each candidate, weighted by age, `[num_candidates]`.

    The age of an event is the number of newer events, not a time, so a weight falls less in a quiet
    month than on a busy day.

    Raises:
        ValueError: The training events have no timestamps.
    """
    if training.times is None:
        raise ValueError("recent_popularity needs timestamps; set `events.timestamp`")
    ages = np.empty(len(training.times))
    ages[np.argsort(-training.times, kind="stable")] = np.arange(len(ages))
    weights = 0.5 ** (ages / max(1.0, _HALF_LIFE_SHARE * len(ages)))
    counts = np.bincount(training.candidates, weights=weights, minlength=training.num_candidates)
    return counts.astype(np.float64)


def popularity_alone(popularity: Scores, histories: Histories) -> CooccurrenceScores:
    """Score all candidates by popularity, independently of the history."""
    shape = (histories.num_queries, len(popularity))
    return CooccurrenceScores(sparse.csr_matrix(shape, dtype=np.float64), popularity)


def repeat_history(popularity: Scores, histories: Histories) -> CooccurrenceScores:
    """Rank the history's candidates first, from newest to oldest, then the others by popularity."""
    num_candidates = len(popularity)
    known = np.flatnonzero(histories.events >= 0)
    keys = histories.rows[known] * num_candidates + histories.events[known]
    # Of a repeated candidate, only the newest event counts.
    keys, from_end = np.unique(keys[::-1], return_index=True)
    order = 1.0 + known[len(known) - 1 - from_end]
    found = sparse.csr_matrix(
        (order, np.divmod(keys, max(num_candidates, 1))),
        shape=(histories.num_queries, num_candidates),
    )
    return CooccurrenceScores(found, popularity)
