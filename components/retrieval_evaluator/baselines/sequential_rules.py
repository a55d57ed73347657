"""Sequential rules: candidates that followed the history's newest events in other timelines."""

from dataclasses import InitVar, dataclass

import numpy as np
from scipy import sparse

from components.retrieval_evaluator.baselines.interface import (
    CooccurrenceScores,
    Histories,
    Scores,
    TrainingEvents,
)
from models.ranking.cooccurrence import count_successors


@dataclass(eq=False)
class SequentialRules:
    """Baseline that counts pairs of events (a, b) with b after a, weighted by 1 / distance.

    The score of a candidate b is the sum of the weights of (a, b) over the newest events a of the
    history, where newer events count more. It is divided by a small power of the popularity of b.

    Attributes:
        popularity: Popularity scores, which break ties and order all other candidates.
        decay: Number of events after which the weight of a history event drops to 1/e.
        power: Exponent of the popularity that divides the score.
        window: Maximum distance from a to b.

    References:
        Ludewig, Jannach. Evaluation of Session-based Recommendation Algorithms. UMUAI 2018.
    """

    training: InitVar[TrainingEvents]
    popularity: Scores
    decay: float = 4.0
    power: float = 0.25
    window: int = 10

    def __post_init__(self, training: TrainingEvents) -> None:
        size = training.num_candidates
        rules = count_successors(training.candidates, training.offsets, size, self.window)
        damping = np.maximum(training.counts, 1).astype(np.float32) ** -self.power
        self._rules = (rules @ sparse.diags(damping)).tocsr()

    def scores(self, histories: Histories) -> CooccurrenceScores:
        """Return the scores of all candidates for each history."""
        weights = np.exp(-histories.ages / self.decay)
        # Beyond ten times the decay, the weights are negligible.
        used = (histories.events >= 0) & (histories.ages < 10 * self.decay)
        queries = sparse.csr_matrix(
            (weights[used], (histories.rows[used], histories.events[used])),
            shape=(histories.num_queries, self._rules.shape[0]),
            dtype=np.float32,
        )
        return CooccurrenceScores.untied(queries @ self._rules, self.popularity)
