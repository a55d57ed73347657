"""The rankers of an evaluation: the towers of a model, and the baselines by name."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from components.retrieval_evaluator.baselines.cooccurrence_scores import (
    CooccurrenceScores,
    Histories,
    Scores,
)
from components.retrieval_evaluator.baselines.item_knn import ItemKNN
from components.retrieval_evaluator.baselines.popularity import (
    popularity_alone,
    popularity_scores,
    recent_counts,
    repeat_history,
)
from components.retrieval_evaluator.baselines.sequential_rules import SequentialRules
from components.retrieval_evaluator.baselines.session_knn import SessionKNN
from components.retrieval_evaluator.baselines.training_events import TrainingEvents
from components.retrieval_evaluator.config import BaselineName
from components.retrieval_evaluator.evaluation_queries import EvaluationQueries
from components.retrieval_evaluator.ranking import DenseRanking, Ranking, SparseRanking
from models.towers.saved_towers import SavedTowers

MODEL = "model"
LAST_BLESSED = "last_blessed"

# If a baseline finds a smaller share of the candidates, a sparse ranking is faster.
_SPARSE_SHARE = 0.01
# 16 MB. Larger arrays are returned to the operating system and allocated again for every block,
# which takes longer than the multiplication that fills them.
_SCORES_PER_PART = 4_000_000

# For each part of a block, yields the first row, the row after the last one, and the ranking.
Ranker = Callable[[EvaluationQueries], Iterator[tuple[int, int, Ranking]]]
Baseline = Callable[[Histories], CooccurrenceScores]


def towers_ranker(towers: SavedTowers, vectors: Scores) -> Ranker:
    """Return a ranker that embeds raw queries, as a server does, and scores all candidates."""

    def rank(queries: EvaluationQueries) -> Iterator[tuple[int, int, Ranking]]:
        embeddings = towers.embed_queries(queries.inputs)
        for first, last in _parts(len(queries), len(vectors)):
            yield first, last, DenseRanking(embeddings[first:last] @ vectors.T)

    return rank


def baseline_ranker(baseline: Baseline) -> Ranker:
    """Return a ranker that scores candidates with a baseline."""

    def rank(queries: EvaluationQueries) -> Iterator[tuple[int, int, Ranking]]:
        scores = baseline(Histories(len(queries), queries.history_rows, queries.history))
        num_rows, num_candidates = scores.found.shape
        if scores.found.nnz < _SPARSE_SHARE * num_rows * num_candidates:
            yield 0, num_rows, SparseRanking(scores)
            return
        for first, last in _parts(num_rows, num_candidates):
            yield first, last, DenseRanking(scores.dense(first, last))

    return rank


def make_baselines(names: Sequence[BaselineName], training: TrainingEvents) -> dict[str, Baseline]:
    """Fit baselines to the training events, and return them by name."""
    popularity = popularity_scores(training.counts)
    makers: dict[BaselineName, Callable[[], Baseline]] = {
        "popularity": lambda: partial(popularity_alone, popularity),
        "recent_popularity": lambda: partial(
            popularity_alone, popularity_scores(recent_counts(training))
        ),
        "repeat_history": lambda: partial(repeat_history, popularity),
        "sequential_rules": lambda: SequentialRules(training, popularity).scores,
        "item_knn": lambda: ItemKNN(training, popularity).scores,
        "session_knn": lambda: SessionKNN(training, popularity).scores,
    }
    return {name: makers[name]() for name in names}


def _parts(num_rows: int, num_candidates: int) -> Iterator[tuple[int, int]]:
    step = max(1, _SCORES_PER_PART // max(num_candidates, 1))
    for first in range(0, num_rows, step):
        yield first, min(first + step, num_rows)
