"""The input and the output of every baseline: histories, and co-occurrence scores."""

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
    """The histories of a block of evaluation queries, candidates as indices.

    Attributes:
        num_queries: Number of evaluation queries.
        rows: Ascending evaluation query of each event `[num_events]`.
        events: Candidates, oldest first within a history; -1 is unknown `[num_events]`.
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
    """Scores of all candidates: a sparse matrix of the candidates found, then popularity.

    Attributes:
        found: Positive scores `[num_queries, num_candidates]`, float64. Candidates without an
            entry rank after those with one, in the order of `popularity`.
        popularity: Scores in (0, 1] without ties `[num_candidates]` (`popularity_scores`).
    """

    found: sparse.csr_matrix
    popularity: Scores

    @classmethod
    def untied(cls, found: sparse.spmatrix, popularity: Scores) -> "CooccurrenceScores":
        """Return the scores with ties broken by popularity.

        Ties count against a ranker, which would be unfair to one that counts whole numbers.
        """
        found = found.tocsr().astype(np.float64)
        # In float32, a difference of one rank vanishes in a large catalogue.
        found.data *= 1.0 + 1e-3 * popularity.astype(np.float64)[found.indices]
        return cls(found, popularity)

    def dense(self, first: int = 0, last: int | None = None) -> Scores:
        """Return all scores of rows `first` to `last` (exclusive), `[…, num_candidates]`."""
        part = self.found[first:last]
        scores = np.repeat((self.popularity.astype(np.float64) - 2.0)[None, :], part.shape[0], 0)
        rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        scores[rows, part.indices] = part.data
        return scores


def expand(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the slice number and the index of every element in the slices, in order."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) - np.repeat(before - starts, lengths)
