"""The baselines by name."""

from collections.abc import Callable, Sequence
from functools import partial

from components.retrieval_evaluator.baselines.cooccurrence_scores import CountedScores
from components.retrieval_evaluator.baselines.histories import Histories
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
from components.retrieval_evaluator.config import Baseline

Contender = Callable[[Histories], CountedScores]


def make_baselines(names: Sequence[Baseline], training: TrainingEvents) -> dict[str, Contender]:
    """Returns what each baseline scores for histories.

    Args:
        names: In the order of the table.
        training: What all of them learn from: the training events of the model.

    Raises:
        ValueError: `recent_popularity` of events without times.
    """
    popularity = popularity_scores(training.counts)
    makers: dict[Baseline, Callable[[], Contender]] = {
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
