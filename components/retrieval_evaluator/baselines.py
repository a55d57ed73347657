"""What simple counting would answer: a model that does not beat it is not worth serving."""

import numpy as np
import numpy.typing as npt

POPULARITY = "popularity"
REPEAT_HISTORY = "repeat_history"


def popularity_scores(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Returns a score for each candidate, `[num_candidates]`, by its count in training.

    Equal counts are told apart by position, so that no candidate is tied: ties count against
    whoever has them, which would be unfair to a baseline of whole numbers.
    """
    order = np.lexsort((np.arange(len(counts)), -counts))
    scores = np.empty(len(counts), np.float32)
    # In (0, 1]: float32 tells apart ranks up to 16.7 million candidates.
    scores[order] = 1.0 - np.arange(len(counts), dtype=np.float64) / max(len(counts), 1)
    return scores


def repeat_history_scores(
    popularity: npt.NDArray[np.float32],
    history_rows: npt.NDArray[np.int64],
    history: npt.NDArray[np.int64],
    num_queries: int,
) -> npt.NDArray[np.float32]:
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
