"""The input and output types of all baselines: histories and co-occurrence scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Histories:
    """The histories of a block of evaluation queries, with candidates as catalogue indices.

    Attributes:
        num_queries: Number of evaluation queries.
        rows: Evaluation query of each event, ascending `[num_events]`.
        events: Candidate of each event, oldest first within a history; -1 if unknown
            `[num_events]`.
    """

    num_queries: int
    rows: Ints
    events: Ints

    @property
    def ages(self) -> Ints:
        """The number of newer events in the same history, for each event `[num_events]`."""
        ends = np.cumsum(np.bincount(self.rows, minlength=self.num_queries))
        return ends[self.rows] - 1 - np.arange(len(self.rows))


@dataclass(frozen=True)
class CooccurrenceScores:
    """Scores of all candidates: sparse scores of those found by a baseline, popularity of the rest.

    Attributes:
        found: Positive scores of the candidates found `[num_queries, num_candidates]`, float64. All
            other candidates rank after them, in the order of `popularity`.
        popularity: Scores in (0, 1] without ties `[num_candidates]` (`popularity_scores`).
    """

    found: sparse.csr_matrix
    popularity: Scores

    @classmethod
    def untied(cls, found: sparse.spmatrix, popularity: Scores) -> "CooccurrenceScores":
        """Return scores in which popularity breaks the ties of `found`.

        A tie counts against a ranker, which would be unfair to baselines whose scores are whole
        numbers.
        """
        found = found.tocsr().astype(np.float64)
        # float64, because float32 cannot represent a difference of one rank in a large catalogue.
        found.data *= 1.0 + 1e-3 * popularity.astype(np.float64)[found.indices]
        return cls(found, popularity)

    def dense(self, first: int = 0, last: int | None = None) -> Scores:
        """Return the scores of all candidates for the rows `first` to `last - 1`."""
        part = self.found[first:last]
        scores = np.repeat((self.popularity.astype(np.float64) - 2.0)[None, :], part.shape[0], 0)
        rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        scores[rows, part.indices] = part.data
        return scores


def expand(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return slice number and index of every element of the slices from `starts` to `ends`."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) - np.repeat(before - starts, lengths)
