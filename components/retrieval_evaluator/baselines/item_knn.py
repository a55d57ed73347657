"""Item-kNN: candidates that occur in the same timelines as those of the history."""

from dataclasses import InitVar, dataclass

from components.retrieval_evaluator.baselines.interface import (
    CooccurrenceScores,
    Histories,
    Scores,
    TrainingEvents,
)
from models.ranking.cooccurrence import binary, find_similar


@dataclass(eq=False)
class ItemKNN:
    """Baseline that sums the cosine similarities of a candidate to the history's candidates.

    It ignores the order of events, both in training and in the history.

    Attributes:
        popularity: Popularity scores, which break ties and order all other candidates.
        neighbours: Number of similar candidates kept for each candidate.
        shrinkage: Added to the product of the norms, to discount rare candidates.

    References:
        Sarwar, Karypis, Konstan, Riedl. Item-based Collaborative Filtering Recommendation
        Algorithms. WWW 2001.
    """

    training: InitVar[TrainingEvents]
    popularity: Scores
    neighbours: int = 100
    shrinkage: float = 10.0

    def __post_init__(self, training: TrainingEvents) -> None:
        self._similar = find_similar(
            training.candidates,
            training.offsets,
            training.num_candidates,
            self.neighbours,
            self.shrinkage,
        )

    def scores(self, histories: Histories) -> CooccurrenceScores:
        """Return the scores of all candidates for each history."""
        known = histories.events >= 0
        queries = binary(
            histories.rows[known],
            histories.events[known],
            (histories.num_queries, self._similar.shape[0]),
        )
        return CooccurrenceScores.untied(queries @ self._similar, self.popularity)
