"""What a block of questions asks, as far as a counting baseline looks at it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Histories:
    """The histories of a block of questions, candidates as indices.

    Attributes:
        num_questions: How many there are.
        rows: Ascending question of each event [num_events].
        events: Candidates, oldest first within a question; -1 is unknown [num_events].
    """

    num_questions: int
    rows: Indices
    events: Indices

    @property
    def ages(self) -> Indices:
        """How many events of its history are newer, for each event [num_events]."""
        lengths = np.bincount(self.rows, minlength=self.num_questions)
        ends = np.cumsum(lengths)
        return ends[self.rows] - 1 - np.arange(len(self.rows))


def over_popularity(found: sparse.csr_matrix, popularity: Scores) -> Scores:
    """Returns dense scores `[num_questions, num_candidates]`: what was found, then popularity.

    Ties count against whoever has them, so nothing may be tied: what was not found stands behind,
    in the order of popularity, and of two candidates found with the same weight the more popular
    is first.

    Args:
        found: Positive weights `[num_questions, num_candidates]`.
        popularity: Of each candidate, in (0, 1] (`popularity_scores`).
    """
    found = found.tocsr()
    # Float32 cannot tell apart what differs by a popularity of one in a large catalogue.
    exact = popularity.astype(np.float64)
    scores = np.repeat((exact - 2.0)[None, :], found.shape[0], axis=0)
    rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    scores[rows, found.indices] = found.data * (1.0 + 1e-3 * exact[found.indices])
    return scores
