"""The baselines of an evaluation, fitted to the training events."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from scipy import sparse

from components.retrieval_evaluator.baselines.content import Content, feature_values
from components.retrieval_evaluator.baselines.interface import IndexOf, TrainingEvents
from components.retrieval_evaluator.baselines.item_knn import ItemKNN
from components.retrieval_evaluator.baselines.linear import EASE, TruncatedSVD
from components.retrieval_evaluator.baselines.over_time import (
    EventLog,
    last_days_popularity,
    newest,
)
from components.retrieval_evaluator.baselines.popularity import (
    popularity_alone,
    popularity_scores,
    recent_counts,
    repeat_history,
)
from components.retrieval_evaluator.baselines.sequential_rules import SequentialRules
from components.retrieval_evaluator.baselines.session_knn import SessionKNN
from components.retrieval_evaluator.config import BaselineName, categorical_features
from components.retrieval_evaluator.evaluation_queries import read_held_out
from components.retrieval_evaluator.rankers import Baseline
from models.features.spec import FeatureSpec
from models.input.availability import Availability
from models.input.raw_examples import read_candidates

_CANDIDATES_PER_BATCH = 4096
_Given = TypeVar("_Given")


def fit_baselines(
    names: Iterable[BaselineName],
    training: TrainingEvents,
    spec: FeatureSpec,
    catalogue: Sequence[str],
    held_out: Sequence[str],
    index_of: IndexOf,
    availability: Availability | None = None,
) -> Mapping[str, Baseline]:
    """Fit baselines to the training events, and return them by name.

    `catalogue` and `held_out` are the files of the candidates and of the evaluated split. Held-out
    events count for the queries after them, in baselines by time.
    """
    names, log, values = tuple(names), None, None
    if training.times is not None and {"last_days_popularity", "newest"} & set(names):
        times, candidates = read_held_out(held_out, spec, index_of)
        events = [(training.times, training.candidates), (times, candidates)]
        published = None if availability is None else availability.start
        log = EventLog.of(training.num_candidates, events, times, published)
    if "content" in names:
        batches = read_candidates(catalogue, spec, _CANDIDATES_PER_BATCH)
        values = feature_values(batches, categorical_features(spec))
        # Nothing is known about the candidates that only training events have.
        values.resize(training.num_candidates, values.shape[1])
    return make_baselines(names, training, log, values)


def make_baselines(
    names: Iterable[BaselineName],
    training: TrainingEvents,
    log: EventLog | None = None,
    values: sparse.csr_matrix | None = None,
) -> dict[str, Baseline]:
    """Fit baselines to the training events, and return them by name.

    `last_days_popularity` and `newest` need the `log`, and `content` needs the `values` of the
    candidates' features (`feature_values`).
    """
    popularity = popularity_scores(training.counts)
    makers: dict[BaselineName, Callable[[], Baseline]] = {
        "popularity": lambda: partial(popularity_alone, popularity),
        "recent_popularity": lambda: partial(
            popularity_alone, popularity_scores(recent_counts(training))
        ),
        "last_days_popularity": lambda: last_days_popularity(_given(log), popularity).scores,
        "newest": lambda: newest(_given(log), popularity).scores,
        "repeat_history": lambda: partial(repeat_history, popularity),
        "content": lambda: Content(_given(values), popularity, log).scores,
        "sequential_rules": lambda: SequentialRules(training, popularity).scores,
        "item_knn": lambda: ItemKNN(training, popularity).scores,
        "session_knn": lambda: SessionKNN(training, popularity).scores,
        "svd": lambda: TruncatedSVD(training, popularity).scores,
        "ease": lambda: EASE(training, popularity).scores,
    }
    return {name: makers[name]() for name in names}


def _given(data: _Given | None) -> _Given:
    if data is None:
        raise ValueError(
            "`last_days_popularity` and `newest` need `events.timestamp`, and `content` needs "
            "`candidates.features`"
        )
    return data
