"""The lists of candidates that the ranker learns from: a right candidate and others."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import MISSING_INDEX
from models.input.availability import Availability
from models.ranking.features import Retrieved, newest_first
from models.ranking.stage import NO_SCORE, RankingStage

_NUM_NEGATIVES = 100
# Share of the events on which a ranker is measured instead of trained.
_MEASURED_SHARE = 0.1

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class Lists(NamedTuple):
    """Lists of candidates to learn from, the right one first.

    Attributes:
        features: Computed features `[num_queries, n, num_features]`.
        is_candidate: False for padding `[num_queries, n]`.
        candidates: Candidate indices `[num_queries, n]`.
        is_found: Whether the retriever finds the right candidate `[num_queries]`.
        labels: Labels of the right candidate, NaN if unknown `[num_queries, num_tasks]`.
        queries: The ID and the declared features of the queries (`dense_features`).
        events: The event that each list is for `[num_queries]`.
    """

    features: Floats
    is_candidate: npt.NDArray[np.bool_]
    candidates: npt.NDArray[np.int32]
    is_found: npt.NDArray[np.bool_]
    labels: Floats
    queries: Mapping[str, npt.NDArray[Any]]
    events: Ints

    def take(self, rows: npt.NDArray[Any]) -> "Lists":
        """Return the lists with these indices, or of this mask."""
        taken: Lists = tf.nest.map_structure(lambda values: values[rows], self)
        return taken

    def choose_measured(self, rng: np.random.Generator) -> Bools:
        """Return a mask of all lists of some events, for measuring instead of learning.

        An event with a large weight may have several lists.
        """
        distinct, event = np.unique(self.events, return_inverse=True)
        is_chosen = np.zeros(len(distinct), bool)
        is_chosen[rng.permutation(len(distinct))[: round(_MEASURED_SHARE * len(distinct))]] = True
        chosen: Bools = is_chosen[event]
        return chosen


class Queries(NamedTuple):
    """A batch of queries to learn from.

    Attributes:
        vectors: Query vectors `[batch, dimension]`.
        history: Candidate indices `[batch, events]`, oldest first; negative if unknown.
        known: The ID and the declared features (`dense_features`).
        targets: The right candidates `[batch]`.
        labels: Their labels by task `[batch, num_tasks]`.
        times: The times of the queries in epoch seconds `[batch]`.
        events: The indices of the events `[batch]`.
    """

    vectors: tf.Tensor
    history: tf.Tensor
    known: dict[str, npt.NDArray[Any]]
    targets: Ints
    labels: Floats
    times: Ints
    events: Ints


class Sampler:
    """Makes lists from the candidates that the retriever finds for queries.

    Without tasks, targets that are not found are left out.
    """

    def __init__(
        self,
        stage: RankingStage,
        vectors: tf.Tensor,
        selectable: Bools,
        num_candidates: int,
        availability: Availability | None = None,
    ) -> None:
        num_candidates = min(num_candidates, len(selectable))
        self._num_listed = min(1 + _NUM_NEGATIVES, num_candidates)

        def find(queries: tf.Tensor, history: tf.Tensor, times: tf.Tensor) -> tuple[tf.Tensor, ...]:
            scores = tf.matmul(queries, vectors, transpose_b=True)
            scores = tf.where(selectable, scores, NO_SCORE)
            if availability is not None:
                scores = tf.where(availability.at(times[:, None]), scores, NO_SCORE)
            if stage.exclude_seen:
                seen = tf.where(history >= 0)
                cells = tf.stack(
                    [tf.cast(seen[:, 0], tf.int32), tf.gather_nd(history, seen)], axis=1
                )
                lowest = tf.fill(tf.shape(cells)[:1], NO_SCORE)
                scores = tf.tensor_scatter_nd_update(scores, cells, lowest)
            top_scores, top = tf.math.top_k(scores, num_candidates)
            recent, length = newest_first(history)
            candidates, found = stage.candidates(queries, recent, top, top_scores)
            # The other candidates too must be selectable, available and, perhaps, not seen.
            may_be = tf.gather(scores, candidates, batch_dims=1) > NO_SCORE
            found = tf.where(may_be, found, NO_SCORE)
            return recent, length, top_scores, candidates, found

        signature = [
            tf.TensorSpec([None, vectors.shape[1]]),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int64),
        ]
        self._find = tf.function(find, signature, autograph=False)
        self._features = tf.function(stage.computed, autograph=False, reduce_retracing=True)
        self._vectors = vectors

    def sample(self, queries: Queries, rng: np.random.Generator) -> Lists:
        """Return a list of the target and others at random for each target."""
        *retrieved, candidates, scores = self._find(queries.vectors, queries.history, queries.times)
        candidates, scores, targets = candidates.numpy(), scores.numpy(), queries.targets
        is_real = scores > NO_SCORE
        is_target = (candidates == targets[:, None]) & is_real
        is_found = is_target.any(axis=1)
        rows = np.arange(len(targets)) if queries.labels.shape[1] else np.flatnonzero(is_found)
        keys = rng.random(is_real.shape) + 2.0 * ~is_real - 2.0 * is_target
        listed = np.argsort(keys[rows], axis=1)[:, : self._num_listed]
        is_real, candidates, scores = (
            np.take_along_axis(of[rows], listed, axis=1) for of in (is_real, candidates, scores)
        )
        is_found, targets = is_found[rows], targets[rows]
        vectors = tf.gather(self._vectors, targets[:, None])
        own = tf.linalg.matvec(vectors, tf.gather(queries.vectors, rows)).numpy()
        scores[~is_found, 0], candidates[~is_found, 0] = own[~is_found, 0], targets[~is_found]
        is_real[:, 0] = True
        known = {name: values[rows] for name, values in queries.known.items()}
        retrieved = Retrieved(*(tf.gather(of, rows) for of in retrieved))
        features = self._features(retrieved, candidates, scores, known).numpy()
        labels, events = queries.labels[rows], queries.events[rows]
        return Lists(features, is_real, candidates, is_found, labels, known, events)

    def ranks(self, ranked: RankingStage, queries: Queries) -> Ints:
        """Return the rank, from 1, of each target by a stage with a ranker.

        Candidates with the same score rank before the target. The rank of a target that the
        retriever does not find is the largest integer.
        """
        *retrieved, candidates, scores = self._find(queries.vectors, queries.history, queries.times)
        is_real = scores.numpy() > NO_SCORE
        is_target = (candidates.numpy() == queries.targets[:, None]) & is_real
        ranking = ranked.rank(Retrieved(*retrieved), candidates, scores, queries.known)
        values = ranking.scores.numpy()
        own = np.max(values, axis=1, keepdims=True, initial=NO_SCORE, where=is_target)
        ranks = np.count_nonzero((values >= own) & is_real, axis=1)
        return np.where(is_target.any(axis=1), ranks, np.iinfo(np.int64).max)


def concatenated(parts: Sequence[Lists]) -> Lists:
    """Return all lists in one, with the declared features padded to the same width."""
    lists: Lists = tf.nest.map_structure(_concatenated, *parts)
    return lists


def _concatenated(*parts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if parts[0].ndim != 2:
        return np.concatenate(parts)
    width = max(part.shape[1] for part in parts)
    missing = [[(0, 0), (0, width - part.shape[1])] for part in parts]
    padded = zip(parts, missing, strict=True)
    return np.concatenate([np.pad(*each, constant_values=MISSING_INDEX) for each in padded])
