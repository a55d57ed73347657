"""Scores of counting baselines: few candidates stand out, the rest are in order of popularity."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CountedScores:
    """What a baseline thinks of every candidate, for a block of questions.

    Attributes:
        found: Positive scores of what stands out `[num_questions, num_candidates]`, float64.
        popularity: In (0, 1] and never tied, of each candidate (`popularity_scores`); what was
            not found stands behind what was, in this order.
    """

    found: sparse.csr_matrix
    popularity: Scores

    @classmethod
    def untied(cls, found: sparse.spmatrix, popularity: Scores) -> "CountedScores":
        """Returns the scores with ties told apart: the more popular of two is first.

        Ties count against whoever has them, which would be unfair to a baseline that counts.
        """
        found = found.tocsr().astype(np.float64)
        # Float32 cannot tell apart what differs by a popularity of one in a large catalogue.
        found.data *= 1.0 + 1e-3 * popularity.astype(np.float64)[found.indices]
        return cls(found, popularity)

    def __len__(self) -> int:
        return int(self.found.shape[0])

    def dense(self, first: int = 0, last: int | None = None) -> Scores:
        """Returns all scores of the questions `first` to before `last`, `[…, num_candidates]`."""
        part = self.found[first:last]
        scores = np.repeat((self.popularity.astype(np.float64) - 2.0)[None, :], part.shape[0], 0)
        rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        scores[rows, part.indices] = part.data
        return scores
