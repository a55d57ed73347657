"""Ranks in a large catalogue from what a baseline found, without a score for every candidate."""

import numpy as np
import numpy.typing as npt

from components.retrieval_evaluator.baselines.cooccurrence_scores import CountedScores
from components.retrieval_evaluator.ranking import UNRANKED

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class CountedRanking:
    """The ranking that `CountedScores.dense` would have, of the same questions.

    Its work grows with what was found, not with the catalogue. What stands by popularity has its
    place from counting what was found or excluded before it.

    Args:
        scores: Of a block of questions.
    """

    def __init__(self, scores: CountedScores) -> None:
        found = scores.found
        found.sort_indices()
        self._num_questions, self._size = found.shape
        self._starts = found.indptr.astype(np.int64)
        rows = np.repeat(np.arange(self._num_questions), np.diff(self._starts))
        candidates = found.indices.astype(np.int64)
        self._keys = rows * self._size + candidates  # ascending
        # By row, the best first; `place_of` leads from an entry of `keys` there.
        order = np.lexsort((-found.data, rows))
        self._rows, self._candidates = rows, candidates[order]
        self._place_of = np.empty_like(order)
        self._place_of[order] = np.arange(len(order))
        data = found.data[order]
        differs = (np.diff(data) != 0) | (np.diff(rows) != 0)
        ends = np.append(np.flatnonzero(differs), len(order) - 1)[: len(order)]
        # A tie counts against whoever has it: the last of equal ones.
        self._tied_to = ends[np.searchsorted(ends, np.arange(len(order)))]
        self._by_popularity = np.argsort(-scores.popularity, kind="stable")
        self._popularity_rank = np.empty(self._size, np.int64)
        self._popularity_rank[self._by_popularity] = np.arange(self._size)
        # Found and excluded ones, by row and popularity.
        self._taken = np.sort(rows * self._size + self._popularity_rank[candidates])
        self._excluded = np.zeros(0, np.int64)
        self._is_excluded: Bools = np.zeros(len(order), bool)
        self._count_excluded()

    def exclude(self, rows: Ints, candidates: Ints) -> None:
        """Takes candidates out of the ranking; -1 is none."""
        known = candidates >= 0
        self._excluded = np.unique(rows[known] * self._size + candidates[known])
        entry, is_found = self._entries(self._excluded)
        self._is_excluded[self._place_of[entry[is_found]]] = True
        others = self._excluded[~is_found]
        ranks = others // self._size * self._size + self._popularity_rank[others % self._size]
        self._taken = np.sort(np.concatenate((self._taken, ranks)))
        self._count_excluded()

    def ranks(self, target_rows: Ints, targets: Ints) -> Ints:
        """Returns the rank, from 1, of each target, as `ranking.target_ranks` does."""
        ranks = np.full(len(targets), UNRANKED, np.int64)
        keys = target_rows * self._size + targets
        asked = np.flatnonzero((targets >= 0) & ~_holds(self._excluded, keys))
        rows, keys = target_rows[asked], keys[asked]
        entry, is_found = self._entries(keys)
        first = self._starts[rows[is_found]]
        place = self._tied_to[self._place_of[entry[is_found]]]
        before = self._num_excluded[place + 1] - self._num_excluded[first]
        ranks[asked[is_found]] = place + 1 - first - before
        rows = rows[~is_found]
        popularity = self._popularity_rank[targets[asked[~is_found]]]
        taken = np.searchsorted(self._taken, rows * self._size + popularity)
        taken -= np.searchsorted(self._taken, rows * self._size)
        ranks[asked[~is_found]] = self._num_found(rows) + popularity + 1 - taken
        return ranks

    def best(self, k: int) -> tuple[Ints, Ints]:
        """Returns the place, from 0, and the candidate of everything among the best k of a row."""
        place = np.arange(len(self._rows)) - self._starts[self._rows]
        place -= self._num_excluded[:-1] - self._num_excluded[self._starts[self._rows]]
        chosen = ~self._is_excluded & (place < k)
        places, candidates = self._by_popularity_alone(k)
        return (
            np.concatenate((place[chosen], places)),
            np.concatenate((self._candidates[chosen], candidates)),
        )

    def _by_popularity_alone(self, k: int) -> tuple[Ints, Ints]:
        """Returns what fills up the best k where less was found."""
        every_row = np.arange(self._num_questions)
        num_found = self._num_found(every_row)
        wanting = np.flatnonzero(num_found < k)
        missing = k - num_found[wanting]
        starts, ends = (
            np.searchsorted(self._taken, (wanting + more) * self._size) for more in (0, 1)
        )
        # Among so many of the most popular ones enough are not taken.
        lengths = np.minimum(missing + ends - starts, self._size)
        which = np.repeat(np.arange(len(wanting)), lengths)
        begins = np.cumsum(lengths) - lengths
        rank = np.arange(len(which)) - begins[which]
        is_free = ~_holds(self._taken, wanting[which] * self._size + rank)
        which, rank = which[is_free], rank[is_free]
        nth = np.arange(len(which)) - np.searchsorted(which, which)
        kept = nth < missing[which]
        which, rank, nth = which[kept], rank[kept], nth[kept]
        return num_found[wanting][which] + nth, self._by_popularity[rank]

    def _num_found(self, rows: Ints) -> Ints:
        """Returns how many of what was found are not excluded."""
        first, last = self._starts[rows], self._starts[rows + 1]
        found: Ints = last - first - self._num_excluded[last] + self._num_excluded[first]
        return found

    def _entries(self, keys: Ints) -> tuple[Ints, Bools]:
        """Returns the entry of each key, and whether it was found at all."""
        return np.searchsorted(self._keys, keys), _holds(self._keys, keys)

    def _count_excluded(self) -> None:
        # Excluded ones before each entry, and in all.
        self._num_excluded = np.concatenate(([0], np.cumsum(self._is_excluded)))


def _holds(ascending: Ints, keys: Ints) -> Bools:
    if not len(ascending):
        return np.zeros(len(keys), bool)
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    is_held: Bools = ascending[place] == keys
    return is_held
