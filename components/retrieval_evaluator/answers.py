"""Asks every contender every question, and keeps where the right answers came."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.retrieval_evaluator.baselines.histories import Histories
from components.retrieval_evaluator.baselines.registry import Contender as Baseline
from components.retrieval_evaluator.beyond_accuracy import ReturnedLists
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.counted_ranking import CountedRanking
from components.retrieval_evaluator.evaluation_queries import Questions
from components.retrieval_evaluator.ranking import DenseRanking, Ranking
from models.towers.saved_towers import SavedTowers

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.object_]
Scores = npt.NDArray[np.floating[Any]]

# Of a baseline: where it found less, sorting that is faster than a score for every candidate.
_SPARSE = 0.01
# 16 MB: larger arrays are given back to the system and fetched again for every block, which took
# longer than the multiplication that fills them.
_SCORES_AT_ONCE = 4_000_000

# Takes a block of questions; yields the first, the one after the last, and how those are answered.
Contender = Callable[[Questions], Iterator[tuple[int, int, Ranking]]]


@dataclass(frozen=True)
class Answers:
    """What became of each held-out event, in the order in which they were asked about.

    Attributes:
        queries: Running number of its query [num_events].
        query_ids: Its query's id as bytes [num_events].
        questions: Number of its question [num_events].
        targets: Its candidate's index, -1 if the catalogue lacks it [num_events].
        target_ids: Its candidate's id as bytes [num_events].
        history_lengths: Events in the question's history [num_events].
        is_repeat: Whether the history holds the candidate [num_events].
        is_repeated: Whether the question holds the candidate out once more, earlier [num_events].
        features: Values of the query's features that slices are made of, as bytes [num_events].
        ranks: By contender, seen candidates treated as the config says [num_events].
        ranks_other: The same, treated the other way.
        lists: What was returned, by contender, seen candidates treated as the config says.
        history_popularity: Mean training events of a history's candidates, averaged over the
            questions that have some; 0 where none has.
    """

    queries: Ints
    query_ids: Ids
    questions: Ints
    targets: Ints
    target_ids: Ids
    history_lengths: Ints
    is_repeat: Bools
    is_repeated: Bools
    features: Mapping[str, Ids]
    ranks: Mapping[str, Ints]
    ranks_other: Mapping[str, Ints]
    lists: Mapping[str, ReturnedLists]
    history_popularity: float


def tower_contender(towers: SavedTowers, vectors: Scores) -> Contender:
    """Returns a model that is asked as a client would.

    Args:
        towers: Embed the queries.
        vectors: Of the catalogue [num_candidates, dimension].
    """

    def answer(asked: Questions) -> Iterator[tuple[int, int, Ranking]]:
        embeddings = towers.embed_queries(asked.inputs)
        for first, last in _parts(len(asked), len(vectors)):
            yield first, last, DenseRanking(embeddings[first:last] @ vectors.T)

    return answer


def baseline_contender(baseline: Baseline) -> Contender:
    """Returns a baseline that looks at histories."""

    def answer(asked: Questions) -> Iterator[tuple[int, int, Ranking]]:
        scores = baseline(Histories(len(asked), asked.history_rows, asked.history))
        num_questions, num_candidates = scores.found.shape
        if scores.found.nnz < _SPARSE * num_questions * num_candidates:
            yield 0, num_questions, CountedRanking(scores)
            return
        for first, last in _parts(num_questions, num_candidates):
            yield first, last, DenseRanking(scores.dense(first, last))

    return answer


def _parts(num_questions: int, num_candidates: int) -> Iterator[tuple[int, int]]:
    step = max(1, _SCORES_AT_ONCE // max(num_candidates, 1))
    for first in range(0, num_questions, step):
        yield first, min(first + step, num_questions)


def ask(
    contenders: Mapping[str, Contender],
    blocks: Iterable[Questions],
    train_counts: Ints,
    config: EvaluationConfig,
) -> Answers:
    """Asks every contender every question, over the full catalogue.

    Args:
        contenders: By name.
        blocks: The questions.
        train_counts: Training events of each candidate [num_candidates].
        config: Cut-offs, slices and whether seen candidates are excluded.
    """
    tally = _Tally(contenders, train_counts, config)
    for asked in blocks:
        tally.add(asked)
    return tally.answers()


class _Tally:
    def __init__(
        self, contenders: Mapping[str, Contender], train_counts: Ints, config: EvaluationConfig
    ) -> None:
        self._contenders = contenders
        self._config = config
        self._train_counts = train_counts
        self._num_questions = 0
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}
        self._lists = {name: ReturnedLists(config.ks, len(train_counts)) for name in contenders}
        self._popularity: list[npt.NDArray[np.float64]] = []

    def add(self, asked: Questions) -> None:
        rows = asked.target_rows
        size = len(self._train_counts)
        pairs = rows * size + asked.targets
        seen = asked.history_rows * size + asked.history
        lengths = np.bincount(asked.history_rows, minlength=len(asked))
        self._keep("queries", asked.queries[rows])
        self._keep("query_ids", asked.query_ids[rows])
        self._keep("questions", rows + self._num_questions)
        self._keep("targets", asked.targets)
        self._keep("target_ids", asked.target_ids)
        self._keep("history_lengths", lengths[rows])
        known = asked.history >= 0
        self._keep("is_repeat", np.isin(pairs, seen[known]) & (asked.targets >= 0))
        for name in self._config.slices:
            self._keep(f"feature {name}", asked.inputs[name].numpy()[rows])
        self._popularity.append(self._mean_popularity(asked, known))
        self._num_questions += len(asked)
        for name, contender in self._contenders.items():
            for first, last, ranking in contender(asked):
                self._rank(name, asked.part(first, last), ranking)

    def _rank(self, name: str, part: Questions, ranking: Ranking) -> None:
        for excluded in (False, True):
            if excluded:
                ranking.exclude(part.history_rows, part.history)
            ranks = ranking.ranks(part.target_rows, part.targets)
            decides = excluded == self._config.exclude_seen
            self._keep(f"{'ranks' if decides else 'ranks_other'} {name}", ranks)
            if decides:
                lists = self._lists[name]
                lists.add(*ranking.best(lists.longest))

    def _mean_popularity(self, asked: Questions, known: Bools) -> npt.NDArray[np.float64]:
        rows = asked.history_rows[known]
        sums = np.bincount(rows, weights=self._train_counts[asked.history[known]])
        numbers = np.bincount(rows)
        means: npt.NDArray[np.float64] = sums[numbers > 0] / numbers[numbers > 0]
        return means

    def answers(self) -> Answers:
        popularity = self._joined(self._popularity)
        questions = self._column("questions", np.int64)
        targets = self._column("targets", np.int64)
        return Answers(
            queries=self._column("queries", np.int64),
            query_ids=self._column("query_ids", object),
            questions=questions,
            targets=targets,
            target_ids=self._column("target_ids", object),
            history_lengths=self._column("history_lengths", np.int64),
            is_repeat=self._column("is_repeat", bool),
            is_repeated=_is_repeated(questions, targets),
            features={
                name: self._column(f"feature {name}", object) for name in self._config.slices
            },
            ranks={name: self._column(f"ranks {name}", np.int64) for name in self._contenders},
            ranks_other={
                name: self._column(f"ranks_other {name}", np.int64) for name in self._contenders
            },
            lists=self._lists,
            history_popularity=float(popularity.mean()) if len(popularity) else 0.0,
        )

    def _keep(self, column: str, values: npt.NDArray[Any]) -> None:
        self._columns.setdefault(column, []).append(values)

    def _column(self, column: str, dtype: type) -> npt.NDArray[Any]:
        return self._joined(self._columns.get(column, [])).astype(dtype)

    @staticmethod
    def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(parts) if parts else np.zeros(0)


def _is_repeated(questions: Ints, targets: Ints) -> Bools:
    """Marks all but the first of a question's targets of one candidate; unknown ones are apart."""
    order = np.lexsort((targets, questions))
    again = (np.diff(questions[order]) == 0) & (np.diff(targets[order]) == 0)
    repeated = np.zeros(len(questions), bool)
    repeated[order[1:]] = again & (targets[order[1:]] >= 0)
    return repeated
