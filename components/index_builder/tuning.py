"""Tunes an index: finds the cheapest search settings that reach a target recall."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from components.index_builder.recall import (
    QUERIES_PER_BATCH,
    ExactAnswers,
    Vectors,
    recall_of_each,
    served_search,
)
from components.index_builder.search_index import SearchIndex, SearchResult

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# The searched part of the catalogue grows by this factor per step.
_STEP = 1.3
_SMALLEST_SHARE = 0.005
# If the recall rises by less in two steps in a row, only the last step is still tried: something
# else limits the recall, such as the number of rescored neighbours.
_LEAST_GAIN = 0.0005
# Standard errors by which the mean recall must exceed the target. If the true recall only equals
# the target, about one sample of queries in forty passes.
_STANDARD_ERRORS = 2.0
_SINGLE_QUERIES = 50

Setting = Mapping[str, int | bool]
SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


class TunableIndex(SearchIndex, Protocol[SettingsT]):
    """A search index whose `settings` may change; a trace uses the current ones."""

    settings: SettingsT

    def attempt(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Search like `search`, but do not score all candidates if too few are found.

        The scores of missing candidates are not finite.
        """

    def end_tuning(self) -> None:
        """Free the memory that only `attempt` needs."""


@dataclass(frozen=True)
class Trial:
    """The measurements of one combination of settings.

    Attributes:
        recall: Mean recall@k of the tuning queries against exact search.
        assured_recall: `recall` minus two standard errors; must reach the target.
        query_us: Median time per query in microseconds, in batches of 128.
        num_short: Number of queries with fewer than k results.
    """

    settings: Setting
    recall: float
    assured_recall: float
    query_us: float
    num_short: int

    def reaches(self, recall_target: float) -> bool:
        """Return whether the assured recall reaches the target and no query had too few results."""
        return self.assured_recall >= recall_target and not self.num_short


def tune(
    index: TunableIndex[SettingsT],
    ladders: Iterable[Iterable[SettingsT]],
    vectors: Vectors,
    exact: ExactAnswers,
    recall_target: float,
    most_us: float = math.inf,
) -> tuple[list[Trial], SettingsT | None, float]:
    """Try the settings of each ladder until one reaches the target or is slower than the best.

    Args:
        index: Index of `vectors`; afterwards, it has the settings that were tried last.
        ladders: Sequences of settings, each from cheap to expensive.
        vectors: `[num_candidates, dimension]`.
        exact: Exact results of the tuning queries.
        recall_target: Recall that the mean minus two standard errors must reach.
        most_us: Time per query in microseconds that the settings must stay below.

    Returns:
        All trials, the cheapest settings that reach the target or None, and their time per query in
        microseconds.
    """
    trials: list[Trial] = []
    chosen: SettingsT | None = None
    least_us = most_us
    for ladder in ladders:
        rungs, best_recall, steps_without_gain = list(ladder), -math.inf, 0
        while rungs:
            index.settings = settings = rungs.pop(0)
            trial = _measure(index, vectors, exact)
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
    return trials, chosen, least_us


def _measure(index: TunableIndex[SettingsT], vectors: Vectors, exact: ExactAnswers) -> Trial:
    search = served_search(index.attempt, vectors.shape[1])
    count = tf.constant(exact.k)
    search(tf.constant(exact.queries[:1]), count)  # the first call builds the searcher
    found, seconds = [], []
    for start in range(0, len(exact.queries), QUERIES_PER_BATCH):
        batch = tf.constant(exact.queries[start : start + QUERIES_PER_BATCH])
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
    """Return the median time of a single query in milliseconds."""
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
    """Yield increasing numbers of leaves or blocks, from about 0.5 % of `whole` to `whole`."""
    part = math.ceil(whole * _SMALLEST_SHARE)
    while part < whole:
        yield part
        part = max(part + 1, math.ceil(part * _STEP))
    yield whole
