"""Content: candidates that share categories, brands or sections with the history."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

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
from components.retrieval_evaluator.baselines.over_time import (
    EventLog,
    discounts_over_time,
    times_of,
)

# Bounds memory: number of scores at a time.
_SCORES_PER_CHUNK = 4_000_000


class Content:
    """Baseline that ranks candidates by the feature values that they share with the history.

    The similarity of two candidates is the cosine of their TF-IDF vectors over the values of all
    categorical features. A candidate's score is the sum of its similarities to the history's
    candidates, each divided by its position from the newest, times a discount by the candidate's
    recent events (`discounts_over_time`).

    Args:
        values: The feature values of each candidate (`feature_values`).
        popularity: Popularity scores, which break ties and order all other candidates.
        log: Events by time, or None to discount by popularity.

    References:
        Lops, de Gemmis, Semeraro. Content-based Recommender Systems: State of the Art and Trends.
        Recommender Systems Handbook, 2011.
    """

    def __init__(
        self, values: sparse.csr_matrix, popularity: Scores, log: EventLog | None = None
    ) -> None:
        self._popularity, self._log = popularity, log
        self._discounts = discounts_over_time(log, popularity)
        size = values.shape[0]
        idf = np.log1p(size / np.maximum(values.getnnz(axis=0), 1))
        weighted = values @ sparse.diags(idf)
        norms = np.sqrt(np.maximum(weighted.multiply(weighted).sum(axis=1).A1, 1e-12))
        self._candidates = sparse.csr_matrix(sparse.diags(1.0 / norms) @ weighted)
        self._by_value = self._candidates.T.tocsr()

    def scores(self, histories: Histories) -> CooccurrenceScores:
        """Return the scores of all candidates for each history."""
        size = len(self._popularity)
        known = histories.events >= 0
        weights = 1.0 / (1.0 + histories.ages[known])
        entries = (histories.rows[known], histories.events[known])
        queries = sparse.csr_matrix((weights, entries), (histories.num_queries, size))
        profiles = queries @ self._candidates
        moments = np.zeros(histories.num_queries, np.int64)
        if self._log is not None:
            moments = self._log.moment_of(times_of(histories))
        found = best_rows(self._rows(profiles, moments), size)
        return CooccurrenceScores.untied(found, self._popularity)

    def _rows(self, profiles: sparse.csr_matrix, moments: Ints) -> Iterator[tuple[Ints, Floats]]:
        step = max(1, _SCORES_PER_CHUNK // max(len(self._popularity), 1))
        for first in range(0, len(moments), step):
            part = profiles[first : first + step] @ self._by_value
            for row, moment in enumerate(moments[first : first + step].tolist()):
                entries = slice(part.indptr[row], part.indptr[row + 1])
                found = part.indices[entries]
                yield found, part.data[entries] * self._discounts[moment, found]


def feature_values(batches: Iterable[Mapping[str, Any]], names: Sequence[str]) -> sparse.csr_matrix:
    """Return which values each candidate has, `[num_candidates, num_values]`.

    `batches` are those of `models.input.raw_examples.read_candidates`. Each feature has its own
    values.
    """
    keys: dict[tuple[str, bytes], int] = {}
    rows, columns, number = [], [], 0
    for batch in batches:
        for name in names:
            values = np.asarray(batch[name])
            for row, cell in enumerate(values.reshape(len(values), -1).tolist()):
                for value in set(cell) - {b""}:
                    rows.append(number + row)
                    columns.append(keys.setdefault((name, value), len(keys)))
        number += len(values)
    ones = np.ones(len(rows), np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), shape=(number, len(keys)))
