"""What everybody takes, and what this query has taken: the least that a model must beat."""

from typing import Any

import numpy as np
import numpy.typing as npt

from components.retrieval_evaluator.baselines.training_events import TrainingEvents

Scores = npt.NDArray[np.floating[Any]]

# After so large a share of the newest events an event counts half.
_HALF_LIFE_SHARE = 0.05


def popularity_scores(counts: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> Scores:
    """Returns a score in (0, 1] for each candidate, `[num_candidates]`, by its count in training.

    Equal counts are told apart by position, so that no candidate is tied: ties count against
    whoever has them, which would be unfair to a baseline of whole numbers.
    """
    order = np.lexsort((np.arange(len(counts)), -counts))
    scores = np.empty(len(counts), np.float32)
    # In (0, 1]: float32 tells apart ranks up to 16.7 million candidates.
    scores[order] = 1.0 - np.arange(len(counts), dtype=np.float64) / max(len(counts), 1)
    return scores


def recent_counts(training: TrainingEvents) -> npt.NDArray[np.float64]:
    """Returns counts `[num_candidates]` in which an event weighs less the older it is.

    Age is counted in events, not in seconds, so that a quiet month weighs no more than a busy day.

    Raises:
        ValueError: The training events have no times.
    """
    if training.times is None:
        raise ValueError("recent popularity needs `columns.timestamp`")
    ages = np.empty(len(training.times))
    ages[np.argsort(-training.times, kind="stable")] = np.arange(len(ages))
    weights = 0.5 ** (ages / max(1.0, _HALF_LIFE_SHARE * len(ages)))
    return np.bincount(
        training.candidates, weights=weights, minlength=training.num_candidates
    ).astype(np.float64)


def repeat_history_scores(
    popularity: Scores,
    history_rows: npt.NDArray[np.int64],
    history: npt.NDArray[np.int64],
    num_queries: int,
) -> Scores:
    """Returns scores `[num_queries, num_candidates]`: the history, newest first, then popularity.

    Args:
        popularity: From `popularity_scores`.
        history_rows: `[num_events]` ascending query of each event.
        history: `[num_events]` candidate indices, oldest first within a query; -1 if unknown.
        num_queries: How many rows to return.
    """
    scores = np.repeat(popularity[None, :], num_queries, axis=0)
    known = history >= 0
    rows, events = history_rows[known], history[known]
    # Later assignments win, so a candidate met twice counts by its newest event.
    scores[rows, events] = 2.0 + np.arange(len(events), dtype=np.float32)
    return scores
