"""Ranks on held-out training timelines, for early stopping and for tuning.

Ranks are exact, over the whole catalogue. The events that the evaluation holds out are not used.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import DivergedError
from models.features.spec import FeatureSpec
from models.training.two_tower_model import TwoTowerModel

_QUERIES_PER_BATCH = 256
# reconstruct: share of a timeline's events that are predicted from the rest.
_HIDDEN_SHARE = 0.2
# next_candidate: number of newest events that are predicted, each from those before it.
_NEWEST = 5

Batch: TypeAlias = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class HoldoutQuery:
    """A query that is made from a timeline, and the events to predict.

    Attributes:
        row: Row of the timeline in its batch.
        history: Candidate indices `[num_events]`, oldest first.
        targets: Candidate indices to predict `[num_targets]`.
    """

    row: int
    history: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]


def holdout_ranks(
    model: TwoTowerModel,
    batches: Iterable[Batch],
    spec: FeatureSpec,
    objective: str,
    *,
    exclude_seen: bool,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return the rank, from 1, of each target among all candidates.

    With `reconstruct`, a random fifth of a timeline's events is predicted from the rest. With
    `next_candidate`, each of the newest five events is predicted from all events before it.
    Candidates with the same score rank before the target. With `exclude_seen`, the history's
    candidates are excluded from the ranking.

    Raises:
        DivergedError: A score is not finite.
    """
    table = model.candidates(tf.range(model.num_candidates)).numpy()
    rng = np.random.default_rng(seed)
    ranks: list[npt.NDArray[np.int64]] = []
    for batch in batches:
        timelines = [row[row >= 0] for row in batch[spec.candidate_id].numpy()]
        queries = [
            query
            for row, events in enumerate(timelines)
            for query in _queries(row, events, objective, rng)
        ]
        for start in range(0, len(queries), _QUERIES_PER_BATCH):
            some = queries[start : start + _QUERIES_PER_BATCH]
            scores = _embed(model, batch, some, spec) @ table.T
            if not np.isfinite(scores).all():
                raise DivergedError(
                    "scores must be finite, but training has diverged; reduce "
                    "`training.learning_rate` or set `training.gradient_clip_norm`"
                )
            ranks += [
                _ranks(row, query, exclude_seen) for row, query in zip(scores, some, strict=True)
            ]
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def _queries(
    row: int, events: npt.NDArray[np.int32], objective: str, rng: np.random.Generator
) -> Iterator[HoldoutQuery]:
    if objective == "reconstruct":
        if len(events) > 1:
            num_hidden = max(1, round(_HIDDEN_SHARE * len(events)))
            hidden = np.zeros(len(events), bool)
            hidden[rng.choice(len(events), num_hidden, replace=False)] = True
            yield HoldoutQuery(row, events[~hidden], events[hidden])
        return
    for position in range(max(1, len(events) - _NEWEST), len(events)):
        yield HoldoutQuery(row, events[:position], events[position : position + 1])


def _embed(
    model: TwoTowerModel, batch: Batch, queries: list[HoldoutQuery], spec: FeatureSpec
) -> npt.NDArray[np.float32]:
    rows = [query.row for query in queries]
    tower, config = model.query_tower, model.config
    encoded: tf.Tensor | float = 0.0
    if config.encodes_history:
        width = max(len(query.history) for query in queries)
        padded = [
            np.pad(query.history, (0, width - len(query.history)), constant_values=-1)
            for query in queries
        ]
        encoded = tower.encode(tf.constant(np.stack(padded)), config.max_history)
    vectors = tower(
        tf.gather(batch[spec.query_id], rows)[:, 0],
        {name: tf.gather(batch[name], rows) for name in spec.query_features},
        encoded,
    )
    embedded: npt.NDArray[np.float32] = vectors.numpy()
    return embedded


def _ranks(
    scores: npt.NDArray[np.float32], query: HoldoutQuery, exclude_seen: bool
) -> npt.NDArray[np.int64]:
    # The out-of-vocabulary index equals the number of candidates, so it has no score.
    targets = query.targets[query.targets < len(scores)]
    own = scores[targets]
    if exclude_seen:
        seen = query.history[query.history < len(scores)]
        scores[seen] = -np.inf
        # A target that is in the history can never be retrieved.
        own = np.where(np.isin(targets, seen), -np.inf, own)
    better = np.count_nonzero(scores[None, :] >= own[:, None], axis=1)
    ranks = np.full(len(query.targets), np.iinfo(np.int64).max)
    ranks[: len(targets)] = np.where(np.isfinite(own), better, ranks[: len(targets)])
    return ranks
