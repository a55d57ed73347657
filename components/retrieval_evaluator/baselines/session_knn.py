"""Session-kNN: candidates near the shared events in the most similar timelines."""

import math
from dataclasses import InitVar, dataclass

import numpy as np
from scipy import sparse

from components.retrieval_evaluator.baselines.interface import (
    CooccurrenceScores,
    Floats,
    Histories,
    Ints,
    Scores,
    TrainingEvents,
    expand,
)

# Bounds memory: number of matches of a history event and a training event at a time.
_MATCHES_PER_CHUNK = 2_000_000
# Larger score arrays would be allocated by the operating system for each chunk, which is slow.
_SCORES_PER_CHUNK = 4_000_000
# If there are fewer scores than this per match, a dense sum is faster than sorting the matches.
_DENSE_RATIO = 20
# Weights below exp(-_DECAYS) are ignored.
_DECAYS = 4


@dataclass(eq=False)
class SessionKNN:
    """Baseline that scores the candidates near the shared events in the most similar timelines.

    The similarity of a timeline is the sum of the weights of the candidates that it shares with the
    history, divided by the square root of its length; the weights fall with the age in the history.
    A similar timeline votes for its candidates. A vote is smaller the farther the candidate is from
    the shared candidate that is newest in the history.

    Of equally similar timelines, those that ended last are preferred.

    Attributes:
        popularity: Popularity scores, which break ties and order all other candidates.
        neighbours: Number of timelines that vote.
        occurrences: Number of newest timelines considered for each candidate.
        history_decay: Number of events after which the weight of a history event drops to 1/e.
        distance_decay: Distance from the shared event at which a vote drops to 1/e.

    References:
        Garg, Gupta, Malhotra, Vig, Shroff. Sequence and Time Aware Neighborhood for Session-based
        Recommendations: STAN. SIGIR 2019.
        Ludewig, Jannach. Evaluation of Session-based Recommendation Algorithms. UMUAI 2018.
    """

    training: InitVar[TrainingEvents]
    popularity: Scores
    neighbours: int = 500
    occurrences: int = 1000
    history_decay: float = 2.0
    distance_decay: float = 3.0

    def __post_init__(self, training: TrainingEvents) -> None:
        reach = int(_DECAYS * self.distance_decay) + 1
        self._distance_weights = np.exp(-np.arange(reach) / self.distance_decay)
        self._offsets, self._candidates = training.offsets, training.candidates
        self._timeline = training.timeline_of
        self._norms = 1.0 / np.sqrt(np.maximum(np.diff(training.offsets), 1))
        # For each candidate, the last event in each of the newest timelines that contain it.
        order = np.lexsort((np.arange(len(self._timeline)), self._candidates))
        candidate = self._candidates[order]
        new_timeline = np.diff(self._timeline[order]) != 0
        last = np.append((candidate[1:] != candidate[:-1]) | new_timeline, True)[: len(order)]
        self._last_events, candidate = order[last], candidate[last]
        each = np.arange(training.num_candidates)
        self._ends = np.searchsorted(candidate, each, side="right")
        self._starts = np.maximum(np.searchsorted(candidate, each), self._ends - self.occurrences)

    def scores(self, histories: Histories) -> CooccurrenceScores:
        """Return the scores of all candidates for each history."""
        num_candidates = len(self.popularity)
        ages = histories.ages
        used = (histories.events >= 0) & (ages < _DECAYS * self.history_decay)
        rows, events, ages = histories.rows[used], histories.events[used], ages[used]
        # Of a repeated candidate, only the newest event counts.
        key = rows * num_candidates + events
        _, newest = np.unique(key[::-1], return_index=True)
        keep = np.sort(len(key) - 1 - newest)
        rows, events = rows[keep], events[keep]
        weight = np.exp(-ages[keep] / self.history_decay)
        keys, totals = [np.zeros(0, np.int64)], [np.zeros(0)]
        matches_per_row = math.ceil(_DECAYS * self.history_decay) * self.occurrences  # at most
        step = min(
            _MATCHES_PER_CHUNK // matches_per_row, _SCORES_PER_CHUNK // max(num_candidates, 1)
        )
        step = max(1, step)
        for start in range(0, histories.num_queries, step):
            first, last = np.searchsorted(rows, (start, start + step))
            if first == last:
                continue
            voted, votes = self._vote(rows[first:last], events[first:last], weight[first:last])
            base = int(rows[first]) * num_candidates
            size = (int(rows[last - 1]) + 1) * num_candidates - base
            chunk_keys, chunk_totals = _sums(voted - base, votes, size)
            keys.append(chunk_keys + base)
            totals.append(chunk_totals)
        entries = np.divmod(np.concatenate(keys), max(num_candidates, 1))
        found = sparse.csr_matrix(
            (np.concatenate(totals), entries), shape=(histories.num_queries, num_candidates)
        )
        return CooccurrenceScores.untied(found, self.popularity)

    def _vote(self, rows: Ints, events: Ints, weights: Floats) -> tuple[Ints, Floats]:
        """Return the key `row * num_candidates + candidate` and the weight of each vote."""
        match, nth = expand(self._starts[events], self._ends[events])
        shared = self._last_events[nth]
        num_timelines = len(self._offsets) - 1
        pair = rows[match] * num_timelines + self._timeline[shared]
        # Groups the matches by row and timeline. The sort is stable, so the newest event of the
        # history is last in its group.
        order = np.argsort(pair, kind="stable")
        pair, shared = pair[order], shared[order]
        begins = np.flatnonzero(np.append(True, pair[1:] != pair[:-1])[: len(pair)])
        lasts = np.append(begins[1:], len(pair))[: len(begins)] - 1
        similarity = np.add.reduceat(weights[match[order]], begins) if len(begins) else weights[:0]
        rows, timelines = np.divmod(pair[lasts], max(num_timelines, 1))
        similarity, shared = similarity * self._norms[timelines], shared[lasts]
        near = _nearest(rows, similarity, self.neighbours)
        rows, timelines = rows[near], timelines[near]
        shared, similarity = shared[near], similarity[near]
        reach = len(self._distance_weights)
        vote, voted = expand(
            np.maximum(self._offsets[timelines], shared - reach + 1),
            np.minimum(self._offsets[timelines + 1], shared + reach),
        )
        weights = self._distance_weights[np.abs(voted - shared[vote])] * similarity[vote]
        return (rows * len(self.popularity))[vote] + self._candidates[voted], weights


def _sums(keys: Ints, weights: Floats, size: int) -> tuple[Ints, Floats]:
    """Return the distinct keys in order and their summed weights; all keys are below `size`."""
    if size > _DENSE_RATIO * len(keys):
        found, number = np.unique(keys, return_inverse=True)
        return found, np.bincount(number, weights=weights).astype(np.float64, copy=False)
    totals = np.bincount(keys, weights=weights, minlength=size)
    found = np.flatnonzero(totals > 0)
    return found, totals[found].astype(np.float64, copy=False)


def _nearest(rows: Ints, similarity: Floats, neighbours: int) -> Ints:
    """Return the indices of the most similar entries of each row; ties go to the later entry."""
    counts = np.bincount(rows) if len(rows) else np.zeros(0, np.int64)
    crowded = counts[rows] > neighbours
    few, many = np.flatnonzero(~crowded), np.flatnonzero(crowded)[::-1]
    many = many[np.lexsort((-similarity[many], rows[many]))]
    nth = np.arange(len(many)) - np.searchsorted(rows[many], rows[many])
    return np.sort(np.concatenate((few, many[nth < neighbours])))
