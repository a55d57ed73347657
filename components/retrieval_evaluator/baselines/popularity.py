"""What everybody takes, and what this query has taken: the least that a model must beat."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.retrieval_evaluator.baselines.cooccurrence_scores import CountedScores, Scores
from components.retrieval_evaluator.baselines.histories import Histories
from components.retrieval_evaluator.baselines.training_events import TrainingEvents

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
        raise ValueError("recent popularity needs `events.timestamp`")
    ages = np.empty(len(training.times))
    ages[np.argsort(-training.times, kind="stable")] = np.arange(len(ages))
    weights = 0.5 ** (ages / max(1.0, _HALF_LIFE_SHARE * len(ages)))
    return np.bincount(
        training.candidates, weights=weights, minlength=training.num_candidates
    ).astype(np.float64)


def popularity_alone(popularity: Scores, asked: Histories) -> CountedScores:
    """Returns the same scores for every history."""
    nothing = sparse.csr_matrix((asked.num_questions, len(popularity)), dtype=np.float64)
    return CountedScores(nothing, popularity)


def repeat_history(popularity: Scores, asked: Histories) -> CountedScores:
    """Returns the history, newest first, then popularity."""
    known = np.flatnonzero(asked.events >= 0)
    flat = asked.rows[known] * len(popularity) + asked.events[known]
    # A candidate met twice counts by its newest event.
    places, from_end = np.unique(flat[::-1], return_index=True)
    order = 1.0 + known[len(known) - 1 - from_end]
    shape = (asked.num_questions, len(popularity))
    found = sparse.csr_matrix((order, np.divmod(places, max(len(popularity), 1))), shape=shape)
    return CountedScores(found, popularity)
