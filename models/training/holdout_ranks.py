"""Ranks on held-out training timelines, for early stopping and for tuning.

Ranks are exact, over the whole catalogue. The events that the evaluation holds out are not used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from models.config import HoldoutMetric
from models.errors import DivergedError
from models.features.spec import HISTORY_TYPES_KEY, TIMESTAMP_KEY
from models.input.timeline_dataset import num_newest
from models.training.two_tower_model import TwoTowerModel

_QUERIES_PER_BATCH = 256
# reconstruct: share of a timeline's events that are predicted from the rest.
_HIDDEN_SHARE = 0.2

Indices: TypeAlias = npt.NDArray[np.int32]


def holdout_ranks(
    model: TwoTowerModel,
    batches: Iterable[Mapping[str, tf.Tensor]],
    objective: str,
    *,
    exclude_seen: bool,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return the rank, from 1, of each target among all candidates.

    With `reconstruct`, a random fifth of a timeline's events is predicted from the rest. With
    `next_candidate`, each of the newest events that `TimelineDataset` holds out is predicted from
    all events before it.
    Candidates with the same score rank before the target. With `exclude_seen`, the history's
    candidates are excluded from the ranking, and so are those that are not available at the time of
    the target.

    Raises:
        DivergedError: A score is not finite.
    """
    table = model.all_candidates()
    rng = np.random.default_rng(seed)
    ranks = [np.zeros(0, np.int64)]
    for batch in batches:
        all_events = batch[model.spec.candidate_id].numpy()
        all_types = batch.get(HISTORY_TYPES_KEY, tf.fill(all_events.shape, -1)).numpy()
        lengths = (all_events >= 0).sum(axis=1)
        of_rows = zip(all_events, all_types, lengths, num_newest(lengths).numpy(), strict=True)
        queries = [
            (row, events[visible], types[visible], hidden, events[hidden])
            for row, (events, types, number, newest) in enumerate(of_rows)
            for visible, hidden in _queries(number, newest, objective, rng)
        ]
        for start in range(0, len(queries), _QUERIES_PER_BATCH):
            rows, histories, types, hidden, targets = zip(
                *queries[start : start + _QUERIES_PER_BATCH], strict=True
            )
            first = [positions[0] for positions in hidden]
            scores = embed_histories(model, batch, rows, histories, types, first)
            scores = scores @ table.T
            if not np.isfinite(scores).all():
                raise DivergedError(
                    "scores must be finite, but training has diverged; reduce "
                    "`training.learning_rate` or set `training.gradient_clip_norm`"
                )
            for row, positions, of_query, history, own in zip(
                rows, hidden, scores, histories, targets, strict=True
            ):
                is_available = None
                if model.availability is not None:
                    times = batch[TIMESTAMP_KEY][row].numpy()[positions, None]
                    is_available = model.availability.at(times)
                ranks.append(_ranks(of_query, history, own, exclude_seen, is_available))
    return np.concatenate(ranks)


def holdout_metric(name: str, model: TwoTowerModel, *data: Any, **options: Any) -> float:
    """Return the mean of a metric, such as ndcg@10, over the ranks of `holdout_ranks`."""
    return HoldoutMetric.parse(name).mean(holdout_ranks(model, *data, **options))


def _queries(
    number: int, newest: int, objective: str, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Yield positions of histories and targets, of `number` events with `newest` held out."""
    events = np.arange(number)
    if objective == "reconstruct":
        if number > 1:
            num_hidden = max(1, round(_HIDDEN_SHARE * number))
            hidden = np.zeros(number, bool)
            hidden[rng.choice(number, num_hidden, replace=False)] = True
            yield events[~hidden], events[hidden]
        return
    for position in range(number - newest, number):
        yield events[:position], events[position : position + 1]


def embed_histories(
    model: TwoTowerModel,
    batch: Mapping[str, tf.Tensor],
    rows: Sequence[int],
    histories: Sequence[Indices],
    types: Sequence[Indices] | None = None,
    positions: Sequence[int] = (),
) -> npt.NDArray[np.float32]:
    """Embed queries with the ID and features of the `rows` of a batch, and the given histories.

    `types` are the types of the events in the histories. `positions` are those of the events in the
    batch whose context and time the queries have, if these are inputs.
    """
    tower, config, spec = model.query_tower, model.config, model.spec
    encoded: tf.Tensor | float = 0.0
    if config.encodes_history:
        padded, kinds = (
            None
            if lists is None
            else tf.constant(tf_keras.utils.pad_sequences(lists, padding="post", value=-1))
            for lists in (histories, types)
        )
        encoded = tower.encode(padded, config.max_history, kinds)
    vectors = tower(
        tf.gather(batch[spec.query_id], rows)[:, 0],
        {
            **{name: tf.gather(batch[name], rows) for name in spec.query_features},
            **{
                name: tf.gather_nd(batch[name], tf.stack([rows, positions], axis=1))[:, None]
                for name in spec.context
            },
        },
        encoded,
        times=tf.gather_nd(batch[TIMESTAMP_KEY], tf.stack([rows, positions], axis=1))
        if tower.age is not None
        else None,
    )
    return np.asarray(vectors)


def _ranks(
    scores: npt.NDArray[np.float32],
    history: Indices,
    targets: Indices,
    exclude_seen: bool,
    is_available: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    # The out-of-vocabulary index equals the number of candidates, so it has no score.
    known = targets[targets < len(scores)]
    own = scores[known]
    if exclude_seen:
        seen = history[history < len(scores)]
        scores[seen] = -np.inf
        # A target that is in the history can never be retrieved.
        own = np.where(np.isin(known, seen), -np.inf, own)
    is_better = scores[None, :] >= own[:, None]
    if is_available is not None:  # at the time of each target
        is_better &= is_available[targets < len(scores)]
    better = np.count_nonzero(is_better, axis=1)
    ranks = np.full(len(targets), np.iinfo(np.int64).max)
    ranks[: len(known)] = np.where(np.isfinite(own), better, ranks[: len(known)])
    return ranks
