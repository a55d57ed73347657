"""Session-kNN: what stood near the shared events, in the timelines most like this one."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from components.retrieval_evaluator.baselines.cooccurrence_scores import CountedScores, Scores
from components.retrieval_evaluator.baselines.histories import Histories
from components.retrieval_evaluator.baselines.training_events import Indices, TrainingEvents

# Matches of history and training events that are held at once.
_MATCHES_AT_ONCE = 2_000_000
# Scores that are summed at once: larger arrays are fetched from the system for each chunk.
_PLACES_AT_ONCE = 4_000_000
# Sorting so many is slower than going through this many places for each of them.
_DENSE_PLACES = 20
# What weighs less than 1/e to this power is not looked at.
_DECAYS = 4

Floats = npt.NDArray[np.float64]


class SessionKNN:
    """Finds timelines that share newest events with the history, and scores what stands near them.

    A timeline is near by the shared candidates, each weighing less the older it is in the history,
    divided by the root of the timeline's length. Its candidates weigh less the further they stand
    from the shared one that is newest in the history.

    Args:
        training: Where to look; timelines that ended last are preferred.
        popularity: For candidates that no neighbour holds.
        neighbours: Timelines that vote.
        occurrences: Newest timelines of each candidate that are looked at.
        history_decay: Events of the history after which one counts 1/e.
        distance_decay: Events from the shared one after which a neighbour's counts 1/e.

    References:
        Garg, Gupta, Malhotra, Vig, Shroff. Sequence and Time Aware Neighborhood for Session-based
        Recommendations: STAN. SIGIR 2019.
        Ludewig, Jannach. Evaluation of Session-based Recommendation Algorithms. UMUAI 2018.
    """

    def __init__(
        self,
        training: TrainingEvents,
        popularity: Scores,
        neighbours: int = 500,
        occurrences: int = 1000,
        history_decay: float = 2.0,
        distance_decay: float = 3.0,
    ) -> None:
        self._popularity = popularity
        self._neighbours = neighbours
        self._history_decay = history_decay
        reach = int(_DECAYS * distance_decay) + 1
        self._distance_weights = np.exp(-np.arange(reach) / distance_decay)
        self._offsets, self._candidates = training.offsets, training.candidates
        timeline = training.timeline_of
        self._timeline = timeline
        lengths = np.diff(training.offsets)
        self._norms = 1.0 / np.sqrt(np.maximum(lengths, 1))
        # By candidate, the last place of each of the newest timelines that hold it.
        order = np.lexsort((np.arange(len(timeline)), self._candidates))
        mine = self._candidates[order]
        last = np.append((mine[1:] != mine[:-1]) | (np.diff(timeline[order]) != 0), True)
        order, mine = order[last[: len(order)]], mine[last[: len(order)]]
        ends = np.searchsorted(mine, np.arange(training.num_candidates), side="right")
        starts = np.searchsorted(mine, np.arange(training.num_candidates))
        self._places = order
        self._starts, self._ends = np.maximum(starts, ends - occurrences), ends

    def scores(self, histories: Histories) -> CountedScores:
        """Returns scores for each history."""
        num_candidates = len(self._popularity)
        ages = histories.ages
        # The newest occurrence of a candidate in the history speaks for all of them.
        used = (histories.events >= 0) & (ages < _DECAYS * self._history_decay)
        rows, events, ages = histories.rows[used], histories.events[used], ages[used]
        key = rows * num_candidates + events
        _, newest = np.unique(key[::-1], return_index=True)
        keep = np.sort(len(key) - 1 - newest)
        rows, events = rows[keep], events[keep]
        weight = np.exp(-ages[keep] / self._history_decay)
        matches = self._ends[events] - self._starts[events]
        # Questions are apart in the chunks, so places ascend from one to the next.
        places, totals = [np.zeros(0, np.int64)], [np.zeros(0)]
        rows_at_once = max(1, _PLACES_AT_ONCE // max(num_candidates, 1))
        for first, last in _row_chunks(rows, matches, rows_at_once):
            found, weights = self._vote(rows[first:last], events[first:last], weight[first:last])
            base = int(rows[first]) * num_candidates
            size = (int(rows[last - 1]) + 1) * num_candidates - base
            place, total = _sums(found - base, weights, size)
            places.append(place + base)
            totals.append(total)
        flat = np.concatenate(places)
        shape = (histories.num_questions, num_candidates)
        entries = (np.concatenate(totals), np.divmod(flat, max(num_candidates, 1)))
        return CountedScores.untied(sparse.csr_matrix(entries, shape=shape), self._popularity)

    def _vote(self, rows: Indices, events: Indices, weights: Floats) -> tuple[Indices, Floats]:
        """Returns flat places `question * num_candidates + candidate` and their weights."""
        match, places = _expand(self._starts[events], self._ends[events])
        places = self._places[places]
        num_timelines = len(self._offsets) - 1
        pair = rows[match] * num_timelines + self._timeline[places]
        # Matches of a question with a timeline together; stable, so the newest in the history,
        # which is the nearest to the question, comes last. Runs of sorted timelines merge fast.
        order = np.argsort(pair, kind="stable")
        pair, places = pair[order], places[order]
        begins = np.flatnonzero(np.append(True, pair[1:] != pair[:-1])[: len(pair)])
        lasts = np.append(begins[1:], len(pair))[: len(begins)] - 1
        similarity = np.add.reduceat(weights[match[order]], begins) if len(begins) else weights[:0]
        places, pair = places[lasts], pair[lasts]
        rows, timelines = pair // num_timelines, pair % num_timelines
        similarity = similarity * self._norms[timelines]
        near = _nearest(rows, similarity, self._neighbours)
        rows, timelines = rows[near], timelines[near]
        places, similarity = places[near], similarity[near]
        vote, voted = _expand(
            np.maximum(self._offsets[timelines], places - len(self._distance_weights) + 1),
            np.minimum(self._offsets[timelines + 1], places + len(self._distance_weights)),
        )
        weights = self._distance_weights[np.abs(voted - places[vote])] * similarity[vote]
        return (rows * len(self._popularity))[vote] + self._candidates[voted], weights


def _sums(places: Indices, weights: Floats, size: int) -> tuple[Indices, Floats]:
    """Returns the places below `size` that have weight, ascending, and the sum of each."""
    if size > _DENSE_PLACES * len(places):
        found, number = np.unique(places, return_inverse=True)
        return found, np.bincount(number, weights=weights).astype(np.float64, copy=False)
    totals = np.bincount(places, weights=weights, minlength=size)
    found = np.flatnonzero(totals > 0)
    return found, totals[found].astype(np.float64, copy=False)


def _nearest(rows: Indices, similarity: Floats, neighbours: int) -> Indices:
    """Returns the places of the most similar ones of each row, ascending by row.

    Rows are ascending; of equally similar ones the later are taken.
    """
    counts = np.bincount(rows) if len(rows) else np.zeros(0, np.int64)
    crowded = counts[rows] > neighbours
    few, many = np.flatnonzero(~crowded), np.flatnonzero(crowded)[::-1]
    many = many[np.lexsort((-similarity[many], rows[many]))]
    nth = np.arange(len(many)) - np.searchsorted(rows[many], rows[many])
    return np.sort(np.concatenate((few, many[nth < neighbours])))


def _expand(starts: Indices, ends: Indices) -> tuple[Indices, Indices]:
    """Returns the slice's number and the place of everything in the slices, one after another."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) - np.repeat(before - starts, lengths)


def _row_chunks(rows: Indices, sizes: Indices, rows_at_once: int) -> list[tuple[int, int]]:
    """Cuts ascending rows, between rows, where sizes or rows become too many at once."""
    if not len(rows):
        return []
    part = np.cumsum(sizes) // _MATCHES_AT_ONCE
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    changes = np.diff(part[begins], prepend=-1) | np.diff(rows[begins] // rows_at_once, prepend=-1)
    cuts = begins[np.flatnonzero(changes)]
    ends = np.append(cuts[1:], len(rows))
    return [(int(start), int(end)) for start, end in zip(cuts, ends, strict=True)]
