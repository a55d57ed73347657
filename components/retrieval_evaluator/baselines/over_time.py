"""Baselines that know the time of a query: popularity of the last days, and newest first.

They rank by the events before a query, of all timelines, as a service does that never stops
counting. Rankings are computed at a limited number of moments, and a query uses that of the last
moment that is not after it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from components.retrieval_evaluator.baselines.interface import (
    CooccurrenceScores,
    Floats,
    Histories,
    Ints,
    Scores,
    best_rows,
)
from models.features.spec import MISSING_TIME

_MAX_MOMENTS = 64
_DAY_S = 86_400
# The weight of an event halves with each day of its age. Older events are not counted.
_DAYS = 7
# After this time, an event of which the weight halves each week has no influence.
_LONGEST_DAYS = 50 * _DAYS


@dataclass(frozen=True, eq=False)
class EventLog:
    """The events of training and of the evaluated split, in the order of time.

    Attributes:
        times: Times in epoch seconds, ascending `[num_events]`.
        candidates: Catalogue index of each event's candidate `[num_events]`.
        arrivals: Time of each candidate's publication, if it is known, or of its first event;
            infinite if it has none `[num_candidates]`.
        moments: Times at which rankings are computed, ascending `[num_moments]`.
    """

    times: Ints
    candidates: Ints
    arrivals: Floats
    moments: Ints

    @classmethod
    def of(
        cls,
        num_candidates: int,
        events: Iterable[tuple[Ints, Ints]],
        query_times: Ints,
        published: Ints | None = None,
    ) -> "EventLog":
        """Sort events, given as parts of times and candidates, and choose the moments.

        As many of the `query_times` are between one moment and the next. `published` has the times
        of publication of the first candidates; `MISSING_TIME` if it is unknown.
        """
        times, candidates = (np.concatenate(parts) for parts in zip(*events, strict=True))
        times, candidates = times[candidates >= 0], candidates[candidates >= 0]
        order = np.argsort(times, kind="stable")
        times, candidates = times[order], candidates[order]
        arrivals = np.full(num_candidates, np.inf)
        np.minimum.at(arrivals, candidates, times)
        if published is not None:
            first = arrivals[: len(published)]
            first[:] = np.where(published == MISSING_TIME, first, published)
        step = max(1, -(-len(query_times) // _MAX_MOMENTS))
        moments = np.unique(np.sort(query_times)[::step])
        return cls(times, candidates, arrivals, moments)

    def moment_of(self, times: Ints) -> Ints:
        """Return the number of the last moment that is not after each time `[n]`."""
        return np.maximum(np.searchsorted(self.moments, times, side="right") - 1, 0)

    def before(self, moment: int, days: float) -> slice:
        """Return the events of the last days before a moment, without those of the moment."""
        return slice(*np.searchsorted(self.times, (moment - days * _DAY_S, moment)))


class RankedOverTime:
    """Baseline whose ranking depends only on the time of a query.

    Args:
        log: Events by time.
        weights: Positive weights of the ranked candidates at each moment, without ties
            `[num_moments, num_candidates]`.
        popularity: Popularity scores, which order all other candidates.
    """

    def __init__(self, log: EventLog, weights: sparse.csr_matrix, popularity: Scores) -> None:
        self._log, self._weights, self._popularity = log, weights, popularity

    def scores(self, histories: Histories) -> CooccurrenceScores:
        """Return the scores of all candidates for each query."""
        moments = self._log.moment_of(times_of(histories))
        return CooccurrenceScores(self._weights[moments], self._popularity)


def last_days_popularity(log: EventLog, popularity: Scores) -> RankedOverTime:
    """Return a baseline that counts the events of the last seven days, with weights by age."""

    def rows() -> Iterator[tuple[Ints, Floats]]:
        for moment in log.moments.tolist():
            recent = log.before(moment, _DAYS)
            weights = 0.5 ** ((moment - log.times[recent]) / _DAY_S)
            counts = np.bincount(log.candidates[recent], weights, len(popularity))
            found = np.flatnonzero(counts > 0)
            # Popularity breaks ties.
            yield found, counts[found] * (1.0 + 1e-6 * popularity[found].astype(np.float64))

    return RankedOverTime(log, best_rows(rows(), len(popularity)), popularity)


def newest(log: EventLog, popularity: Scores) -> RankedOverTime:
    """Return a baseline that ranks the candidates that arrived last first.

    Of candidates that arrived at the same time, the more popular ones are first.
    """
    by_arrival = np.lexsort((popularity, log.arrivals))
    ends = np.searchsorted(log.arrivals[by_arrival], log.moments)
    rows = ((by_arrival[:end], np.arange(1.0, end + 1)) for end in ends.tolist())
    return RankedOverTime(log, best_rows(rows, len(popularity)), popularity)


def discounts_over_time(log: EventLog | None, popularity: Scores) -> Scores:
    """Return 1 / log2(1 + rank) of each candidate by its recent events, at each moment.

    The weight of an event halves with each week of its age.
    Without a log, the rank is that by popularity. The result is `[num_moments, num_candidates]`.
    """
    size = len(popularity)
    by_popularity = np.argsort(-popularity, kind="stable")
    num_moments = 1 if log is None else len(log.moments)
    ranks = np.empty((num_moments, size), np.float32)
    ranks[:, by_popularity] = np.arange(1, size + 1)
    if log is not None and num_moments:
        # Only their ratios matter, so one time serves for all moments.
        weights = 0.5 ** ((log.moments[-1] - log.times) / (_DAYS * _DAY_S))
        for row, moment in zip(ranks, log.moments.tolist(), strict=True):
            recent = log.before(moment, _LONGEST_DAYS)
            activity = np.bincount(log.candidates[recent], weights[recent], size)
            # Popularity orders candidates of equal activity.
            order = np.argsort(-activity[by_popularity], kind="stable")
            row[by_popularity[order]] = np.arange(1, size + 1)
    discounts: Scores = 1.0 / np.log2(1.0 + ranks)
    return discounts


def times_of(histories: Histories) -> Ints:
    """Return the times of the queries `[num_queries]`.

    Raises:
        ValueError: The queries have no times.
    """
    if histories.times is None:
        raise ValueError("the baseline needs the times of queries; set `events.timestamp`")
    return histories.times
