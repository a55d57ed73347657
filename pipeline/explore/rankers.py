"""The rankers that the explorer asks, and the reasons of their recommendations."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.features.spec import HISTORY_TYPES_KEY
from pipeline.config.project import PipelineConfig
from pipeline.explore.source import Items
from serving.clients.grpc_client import RetrievalClient
from serving.clients.query import Query

Scores = npt.NDArray[np.floating[Any]]

# The shorter histories of a request have at most about this many events in all, which take 20 ms,
# and there are about this many of them.
_MAX_EVENTS, _MAX_LEFT_OUT = 5000, 64
# With a ranking stage, each history is a request of its own.
_MAX_LEFT_OUT_RANKED = 10
# Scores of a baseline for several histories, which take 8 bytes each.
_SCORES_AT_ONCE = 4_000_000
_NUM_REASONS = 3
_NO_EVENT = "\N{NULL}no event"


@dataclass(frozen=True)
class Recommended:
    """A recommended item.

    Attributes:
        outputs: Other outputs of the model for it, such as the predictions of tasks.
        reasons: Items of the history with the largest shares in the score (`shares_of`).
    """

    item: str
    score: float
    outputs: Mapping[str, Any] = field(default_factory=dict)
    reasons: Sequence[tuple[str, float]] = ()


class Ranker(Protocol):
    """A model or a baseline."""

    max_left_out: int

    def recommend(self, query: Query, k: int) -> list[Recommended]:
        """Return the best candidates for a query."""

    def scores(self, queries: Sequence[Query], candidates: Sequence[str]) -> Scores:
        """Return the scores of candidates `[num_queries, num_candidates]`."""


class ServedModel:
    """A model that a server has; see `RetrievalClient`."""

    def __init__(self, client: RetrievalClient, config: PipelineConfig, items: Items) -> None:
        self._client, self._items = client, items
        self._learned = config.spec.candidate_features
        # By version, because a server may load a newer one.
        self._vector = lru_cache(maxsize=20_000)(self._embed)
        signatures = client.metadata().signatures
        self._is_ranked = "rank" in signatures
        self.max_left_out = _MAX_LEFT_OUT_RANKED if self._is_ranked else _MAX_LEFT_OUT
        shape = signatures["serving_default"].outputs["candidate_ids"].shape
        self._width = (shape[-1] if shape else None) or config.index.k
        self._pool = ThreadPoolExecutor(_MAX_LEFT_OUT_RANKED + 1)

    def recommend(self, query: Query, k: int) -> list[Recommended]:
        """Return the best candidates for a query."""
        queries = [_as_shown(query)]
        (answer,) = self._client.recommend(queries=queries, k=min(k, self._width))
        return self._recommended(answer)

    def similar(self, item: str, filters: Mapping[str, Sequence[str]], k: int) -> list[Recommended]:
        """Return the candidates that are most similar to an item."""
        return self._recommended(self._client.similar(item, filters=filters, k=min(k, self._width)))

    def scores(self, queries: Sequence[Query], candidates: Sequence[str]) -> Scores:
        """Return the scores of candidates `[num_queries, num_candidates]`."""
        if self._is_ranked:
            rows = self._pool.map(lambda query: self._rank(query, candidates), queries)
            return np.array(list(rows))
        embedded = self._client.embed_queries(queries)
        version = embedded[0].model_version
        vectors = np.stack([self._vector(item, version) for item in candidates])
        return np.array([of.values for of in embedded], np.float32) @ vectors.T

    def _rank(self, query: Query, candidates: Sequence[str]) -> tuple[float, ...]:
        query = _as_shown(query)
        answer = self._client.rank(
            candidates, query_id=query.query_id, history=query.history, features=query.features
        )
        return answer.scores

    def _embed(self, item: str, _version: int | None) -> Scores:
        given = self._items.rows.inputs(item)
        features = {name: of for name, of in given.items() if name in self._learned}
        return np.array(self._client.embed_candidate(item, features=features).values, np.float32)

    def _recommended(self, answer: Any) -> list[Recommended]:
        # The page shows the fields of the catalogue in the same way for all rankers.
        names = [name for name in answer.fields if name not in self._items.rows.features]
        return [
            Recommended(item, score, {name: answer.fields[name][row] for name in names})
            for row, (item, score) in enumerate(
                zip(answer.candidate_ids, answer.scores, strict=True)
            )
        ]


def _as_shown(query: Query) -> Query:
    """Keep the model from using its own history of a query that is asked without one.

    A candidate that the model does not know is no event (`serving.known_histories`).
    """
    if query.history or not query.query_id:
        return query
    types = {HISTORY_TYPES_KEY: [""]} if HISTORY_TYPES_KEY in query.features else {}
    return replace(query, history=[_NO_EVENT], features={**query.features, **types})


class BaselineRanker:
    """A baseline that is fitted to training events.

    Args:
        score: Returns the scores of all candidates for histories, `[num, num_candidates]`.
        ids: The candidates.
        items: Their features, for filters.
    """

    max_left_out = _MAX_LEFT_OUT

    def __init__(
        self,
        score: Callable[[Sequence[Sequence[str]]], Scores],
        ids: Sequence[str],
        items: Items,
    ) -> None:
        self._score, self._ids, self._items = score, ids, items
        self._index_of = {name: index for index, name in enumerate(ids)}

    def recommend(self, query: Query, k: int) -> list[Recommended]:
        """Return the best candidates for a query."""
        (scores,), excluded = self._score([query.history]), set(query.exclude)
        found: list[Recommended] = []
        for index in np.argsort(-scores, kind="stable").tolist():
            item = self._ids[index]
            if item not in excluded and self._items.passes(item, query.filters):
                found.append(Recommended(item, float(scores[index])))
            if len(found) == k:
                break
        return found

    def scores(self, queries: Sequence[Query], candidates: Sequence[str]) -> Scores:
        """Return the scores of candidates `[num_queries, num_candidates]`."""
        columns = np.array([self._index_of.get(item, -1) for item in candidates])
        histories = [of.history for of in queries]
        step = max(1, _SCORES_AT_ONCE // len(self._ids))
        parts = (histories[first : first + step] for first in range(0, len(histories), step))
        scores = np.concatenate([self._score(part)[:, columns] for part in parts])
        # Candidates that a history says nothing about have negative scores by popularity.
        return np.where(columns < 0, 0.0, np.maximum(scores, 0.0))


def shares_of(
    ranker: Ranker, query: Query, candidates: Sequence[str], max_history: int
) -> tuple[list[str], Scores]:
    """Return items of a history, and their shares in scores `[num_items, num_candidates]`.

    A share is the contribution of an item divided by the sum of all contributions without their
    signs. It is negative if the score is higher without the item. With few items, a contribution is
    the Shapley value: the change of the score if the item joins, averaged over all orders in which
    the items can join. Otherwise, it is the change if the item is left out of the history, for the
    newest items.

    References:
        Lundberg, Lee. A unified approach to interpreting model predictions. NeurIPS, 2017.
    """
    first = max(len(query.history) - max_history, 0)
    history = query.history[first:]
    items = list(dict.fromkeys(reversed(history)))
    if 2 ** len(items) <= ranker.max_left_out:
        left_out = [set(of) for size in range(len(items) + 1) for of in combinations(items, size)]
        weights = np.array(
            [[_shapley_weight(item, of, len(items)) for of in left_out] for item in items]
        )
    else:
        items = items[: min(ranker.max_left_out, max(_MAX_EVENTS // len(history), 1))]
        left_out = [set(), *({item} for item in items)]
        weights = np.hstack([np.ones((len(items), 1)), -np.eye(len(items))])
    if not items or not candidates:
        return [], np.zeros((0, len(candidates)))
    queries = [_without(query, first, of) for of in left_out]
    changes = weights @ ranker.scores(queries, candidates)
    totals = np.abs(changes).sum(axis=0)
    return items, changes / np.where(totals > 0, totals, 1)


def _shapley_weight(item: str, left_out: Collection[str], number: int) -> float:
    """Return the weight of the score without some of a number of items."""
    if item in left_out:
        return -1 / (number * comb(number - 1, len(left_out) - 1))
    return 1 / (number * comb(number - 1, len(left_out)))


def _without(query: Query, first: int, left_out: Collection[str]) -> Query:
    """Return a query with only the events from the index `first`, without those of some items."""
    kept = [row for row in range(first, len(query.history)) if query.history[row] not in left_out]
    features: dict[str, Any] = dict(query.features)
    if HISTORY_TYPES_KEY in features:
        features[HISTORY_TYPES_KEY] = [features[HISTORY_TYPES_KEY][row] for row in kept]
    return Query(query.query_id, [query.history[row] for row in kept], features)


def with_reasons(
    recommended: Sequence[Recommended], left_out: Sequence[str], shares: Scores
) -> list[Recommended]:
    """Add to each recommendation the items with the largest positive shares in its score."""
    explained = []
    for column, of in enumerate(recommended):
        order = np.argsort(-shares[:, column], kind="stable")[:_NUM_REASONS].tolist()
        reasons = [(left_out[row], float(shares[row, column])) for row in order]
        explained.append(replace(of, reasons=[of for of in reasons if of[1] > 0]))
    return explained
