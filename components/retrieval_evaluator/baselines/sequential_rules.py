"""Sequential rules: what came after the newest events, in the timelines of others."""

import numpy as np
from scipy import sparse

from components.retrieval_evaluator.baselines.cooccurrence_scores import CountedScores, Scores
from components.retrieval_evaluator.baselines.histories import Histories
from components.retrieval_evaluator.baselines.training_events import TrainingEvents


class SequentialRules:
    """Counts pairs (a, b) with b after a, nearer ones for more.

    A candidate's score is the sum over the newest events a of the history, the newest for most, of
    the weight of (a, b), divided by the popularity of b to a small power.

    Args:
        training: What to count.
        popularity: For candidates that no rule finds.
        window: How far b may stand after a.
        decay: Events of the history after which one counts 1/e.
        power: Of the popularity.

    References:
        Ludewig, Jannach. Evaluation of Session-based Recommendation Algorithms. UMUAI 2018.
    """

    def __init__(
        self,
        training: TrainingEvents,
        popularity: Scores,
        window: int = 10,
        decay: float = 4.0,
        power: float = 0.25,
    ) -> None:
        self._popularity = popularity
        self._decay = decay
        shape = (training.num_candidates, training.num_candidates)
        timeline = training.timeline_of
        rules = sparse.csr_matrix(shape, dtype=np.float32)
        for distance in range(1, window + 1):
            together = np.flatnonzero(timeline[distance:] == timeline[:-distance])
            before = training.candidates[together]
            after = training.candidates[together + distance]
            weights = np.full(len(together), 1.0 / distance, np.float32)
            rules = rules + sparse.csr_matrix((weights, (before, after)), shape=shape)
        damping = np.maximum(training.counts, 1).astype(np.float32) ** -power
        self._rules = (rules @ sparse.diags(damping)).tocsr()

    def scores(self, histories: Histories) -> CountedScores:
        """Returns scores for each history."""
        weights = np.exp(-histories.ages / self._decay)
        # After ten times the decay nothing is left to weigh.
        used = (histories.events >= 0) & (histories.ages < 10 * self._decay)
        asked = sparse.csr_matrix(
            (weights[used], (histories.rows[used], histories.events[used])),
            shape=(histories.num_questions, self._rules.shape[0]),
            dtype=np.float32,
        )
        return CountedScores.untied(asked @ self._rules, self._popularity)
