"""How well a model predicts training timelines that it was not fitted on.

Exact, over the whole catalogue, while a fit or a search is under way. What the evaluation holds out
is not touched.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import FeatureSpec
from models.towers.two_tower import TwoTowerModel

_QUESTIONS_AT_ONCE = 256
# Of a timeline whose order means nothing: what is asked for.
_HIDDEN_SHARE = 0.2
# Of a timeline whose order counts: the newest events, each asked for from those before it.
_NEWEST = 5

Batch = Mapping[str, tf.Tensor]


class NotFiniteError(Exception):
    """The model's scores are not numbers: the fit has diverged."""


@dataclass(frozen=True)
class Question:
    """Some events of a timeline, to be predicted from others.

    Attributes:
        row: Of the timeline in its batch.
        history: Candidate indices `[num_events]`, oldest first.
        targets: Candidate indices.
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
    """Returns the rank, from 1, of each event that is asked for, among all candidates.

    Where order means nothing (`reconstruct`), a fifth of a timeline's events, drawn by `seed`, is
    asked for from the others; else (`next_candidate`) each of the newest five from all before it.
    A candidate stands behind all that score as much as it does.

    Args:
        model: The towers.
        batches: Timelines as they are fitted on.
        spec: Ids and features.
        objective: Of the fit.
        exclude_seen: Whether candidates of the history are left out of the ranking.
        seed: Of what is asked for.

    Raises:
        NotFiniteError: A score is not a number.
    """
    table = model.candidates(tf.range(model.num_candidates)).numpy()
    rng = np.random.default_rng(seed)
    ranks: list[npt.NDArray[np.int64]] = []
    for batch in batches:
        timelines = [row[row >= 0] for row in batch[spec.candidate_id].numpy()]
        asked = [
            question
            for row, events in enumerate(timelines)
            for question in _questions(row, events, objective, rng)
        ]
        for start in range(0, len(asked), _QUESTIONS_AT_ONCE):
            some = asked[start : start + _QUESTIONS_AT_ONCE]
            scores = _embed(model, batch, some, spec) @ table.T
            if not np.isfinite(scores).all():
                raise NotFiniteError("scores are not finite: the fit has diverged")
            ranks += [
                _ranks(row, question, exclude_seen)
                for row, question in zip(scores, some, strict=True)
            ]
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def _questions(
    row: int, events: npt.NDArray[np.int32], objective: str, rng: np.random.Generator
) -> Iterator[Question]:
    if objective == "reconstruct":
        if len(events) > 1:
            num_hidden = max(1, round(_HIDDEN_SHARE * len(events)))
            hidden = np.zeros(len(events), bool)
            hidden[rng.choice(len(events), num_hidden, replace=False)] = True
            yield Question(row, events[~hidden], events[hidden])
        return
    for place in range(max(1, len(events) - _NEWEST), len(events)):
        yield Question(row, events[:place], events[place : place + 1])


def _embed(
    model: TwoTowerModel, batch: Batch, asked: list[Question], spec: FeatureSpec
) -> npt.NDArray[np.float32]:
    histories = [question.history for question in asked]
    width = max(len(history) for history in histories)
    padded = np.stack(
        [np.pad(history, (0, width - len(history)), constant_values=-1) for history in histories]
    )
    rows = [question.row for question in asked]
    tower = model.query_tower
    encoded = tower.encode(tf.constant(padded), model.max_history) if model.encodes_history else 0.0
    vectors = tower(
        tf.gather(batch[spec.query_id], rows)[:, 0],
        {name: tf.gather(batch[name], rows) for name in spec.query_features},
        encoded,
    )
    embedded: npt.NDArray[np.float32] = vectors.numpy()
    return embedded


def _ranks(
    scores: npt.NDArray[np.float32], question: Question, exclude_seen: bool
) -> npt.NDArray[np.int64]:
    # Transform's index for what it does not know is one past the catalogue.
    targets = question.targets[question.targets < len(scores)]
    own = scores[targets]
    if exclude_seen:
        seen = question.history[question.history < len(scores)]
        scores[seen] = -np.inf
        # What was seen before and comes again is never found.
        own = np.where(np.isin(targets, seen), -np.inf, own)
    better = np.count_nonzero(scores[None, :] >= own[:, None], axis=1)
    ranks = np.full(len(question.targets), np.iinfo(np.int64).max)
    ranks[: len(targets)] = np.where(np.isfinite(own), better, ranks[: len(targets)])
    return ranks
