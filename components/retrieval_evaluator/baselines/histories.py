"""What a block of questions asks, as far as a counting baseline looks at it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


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
