"""Finds the cheapest settings of an index that reach a recall, by trying them."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from components.index_builder.recall import (
    QUERIES_A_BATCH,
    ExactAnswers,
    Vectors,
    recall_of_each,
    served_search,
)
from components.index_builder.search_index import SearchIndex, SearchResult

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# One step of a ladder: how much more of the catalogue is searched.
_STEP = 1.3
_LEAST_SHARE = 0.005
# Where two steps in a row gain less, only the last of the ladder is tried yet: something else holds
# the recall down, such as too few neighbours rescored.
_LEAST_GAIN = 0.0005
# Standard errors that the mean recall must lie above the target: of as many other queries, one
# sample in forty then falls short.
_STANDARD_ERRORS = 2.0
_SINGLE_QUERIES = 50

Setting = Mapping[str, int | bool]
SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


class TunableIndex(SearchIndex, Protocol[SettingsT]):
    """An index whose search settings may be changed between two traces."""

    settings: SettingsT

    def attempt(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Returns what `search` would without looking at all candidates where it finds too few.

        The scores of missing places are not finite.
        """

    def end_tuning(self) -> None:
        """Frees what only `attempt` needs; it is not asked any more."""


@dataclass(frozen=True)
class Trial:
    """One point of the trade-off.

    Attributes:
        settings: Of the backend.
        recall: Mean recall@k of the tuning queries against exact search.
        assured_recall: The mean less two standard errors, which has to reach the target.
        query_us: Median microseconds a query in batches of 128.
        num_short: Queries that found fewer than k.
    """

    settings: Setting
    recall: float
    assured_recall: float
    query_us: float
    num_short: int

    def reaches(self, recall_target: float) -> bool:
        """Tells whether these settings may be taken."""
        return self.assured_recall >= recall_target and not self.num_short


@dataclass(frozen=True)
class Tuned(Generic[SettingsT]):
    """What tuning found.

    Attributes:
        trials: All that was tried.
        settings: The cheapest that reach the target, None where none does.
        query_us: What they cost.
    """

    trials: tuple[Trial, ...]
    settings: SettingsT | None
    query_us: float


def tune(
    index: TunableIndex[SettingsT],
    ladders: Iterable[Iterable[SettingsT]],
    vectors: Vectors,
    exact: ExactAnswers,
    recall_target: float,
    most_us: float = math.inf,
) -> Tuned[SettingsT]:
    """Climbs each ladder until the target is reached or it costs more than the best so far.

    Args:
        index: Over `vectors`; left with the last settings that were tried.
        ladders: Settings in the order of their cost, each ladder with another second setting.
        vectors: `[num_candidates, dimension]`.
        exact: Answers to the tuning queries.
        recall_target: That the mean recall must reach with two standard errors to spare.
        most_us: Settings that cost as much are not wanted.
    """
    trials: list[Trial] = []
    chosen: SettingsT | None = None
    least_us = most_us
    for ladder in ladders:
        rungs, best_recall, steps_without_gain = list(ladder), -math.inf, 0
        while rungs:
            index.settings = settings = rungs.pop(0)
            trial = measure(index, vectors, exact)
            trials.append(trial)
            if trial.query_us >= least_us:
                break
            if trial.reaches(recall_target):
                chosen, least_us = settings, trial.query_us
                break
            gains = trial.recall >= best_recall + _LEAST_GAIN
            steps_without_gain = 0 if gains else steps_without_gain + 1
            best_recall = max(best_recall, trial.recall)
            if steps_without_gain == 2:
                del rungs[:-1]
    return Tuned(tuple(trials), chosen, least_us)


def measure(index: TunableIndex[SettingsT], vectors: Vectors, exact: ExactAnswers) -> Trial:
    """Asks the index the queries of `exact`, in batches, and compares."""
    search = served_search(index.attempt, vectors.shape[1])
    count = tf.constant(exact.k)
    search(tf.constant(exact.queries[:1]), count)  # the first call builds the searcher
    found, seconds = [], []
    for start in range(0, len(exact.queries), QUERIES_A_BATCH):
        batch = tf.constant(exact.queries[start : start + QUERIES_A_BATCH])
        started = time.perf_counter()
        indices, scores = search(batch, count)
        seconds.append((time.perf_counter() - started) / len(batch))
        found.append(np.where(np.isfinite(scores), indices, -1))
    indices = np.concatenate(found)
    shares = recall_of_each(vectors, exact, indices)
    recall = float(shares.mean())
    error = float(shares.std() / math.sqrt(len(shares)))
    return Trial(
        asdict(index.settings),
        round(recall, 4),
        round(recall - _STANDARD_ERRORS * error, 4),
        round(float(np.median(seconds)) * 1e6, 1),
        int((indices < 0).any(axis=1).sum()),
    )


def single_query_ms(index: SearchIndex, queries: Vectors, k: int) -> float:
    """Returns the median milliseconds of a query that comes alone."""
    search = served_search(index.search, queries.shape[1])
    count = tf.constant(k)
    seconds = []
    for query in itertools.islice(itertools.cycle(queries), _SINGLE_QUERIES + 1):
        batch = tf.constant(query[None])
        started = time.perf_counter()
        search(batch, count)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:])) * 1e3


def growing_parts(whole: int) -> Iterator[int]:
    """Yields the parts of a whole that are worth a try, smallest first, the last the whole."""
    part = math.ceil(whole * _LEAST_SHARE)
    while part < whole:
        yield part
        part = max(part + 1, math.ceil(part * _STEP))
    yield whole
