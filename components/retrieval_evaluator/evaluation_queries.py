"""Evaluation queries: requests that a protocol makes from timelines with held-out events.

The protocol `from_cut` gives one evaluation query per query, with all events that are not held out
as the history. `rolling` gives one per held-out event, with all earlier events as the history,
including held-out ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from components.interactions.stable_hash import fraction, hash_strings
from components.retrieval_evaluator.baselines.interface import IndexOf, Ints, expand
from components.retrieval_evaluator.config import EvaluationConfig
from models.features.spec import (
    HISTORY_KEY,
    HISTORY_TYPES_KEY,
    TIME_KEY,
    EventWeights,
    FeatureSpec,
)
from models.input.availability import Availability
from models.input.raw_examples import RawTimelines, read_timelines

# Timelines parsed at a time. With `rolling`, each can give several evaluation queries.
_TIMELINES_PER_BATCH = 1024
# Differs from the seeds of the hashes that split the data.
_SEED = 20_240_101

Ids = npt.NDArray[np.object_]


@dataclass(frozen=True)
class EvaluationQueries:
    """A block of evaluation queries, with candidates as indices (`CandidateIndex`); -1 if unknown.

    Attributes:
        inputs: Inputs of a client's request, including the history
            (`models.input.raw_inputs.query_inputs`).
        queries: Number of each row's query, counted over the split from 0 `[num_rows]`.
        query_ids: ID of each row's query as bytes `[num_rows]`.
        history_rows: Row of each history event, ascending `[num_history]`.
        history: Candidate of each history event, oldest first within a row `[num_history]`.
        target_rows: Row of each target, ascending `[num_targets]`.
        targets: Held-out candidates; -1 if the catalogue lacks them `[num_targets]`.
        target_ids: IDs of the targets as bytes, also of unknown ones `[num_targets]`.
        target_weights: Weights of the targets `[num_targets]`.
        target_types: Event types of the targets as bytes, if there are any `[num_targets]`.
        num_candidates: Number of candidates of the catalogue.
        times: Time of each row's first target in epoch seconds `[num_rows]`; None without
            timestamps.
        labels: Other columns of the targets by key `[num_targets]`.
        availability: When the candidates of the catalogue are available; None if they always are.
    """

    inputs: Mapping[str, tf.Tensor]
    queries: Ints
    query_ids: Ids
    history_rows: Ints
    history: Ints
    target_rows: Ints
    targets: Ints
    target_ids: Ids
    num_candidates: int
    target_weights: npt.NDArray[np.float64]
    target_types: Ids | None
    times: Ints | None = None
    labels: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    availability: Availability | None = None

    def hide_unavailable(self, scores: npt.NDArray[np.floating[Any]]) -> None:
        """Set the scores `[num_rows, num_candidates]` of unavailable candidates to -infinity."""
        if self.availability is not None and self.times is not None:
            scores[~self.availability.at(self.times[:, None])] = -np.inf

    def is_available(self, rows: Ints, candidates: Ints) -> npt.NDArray[np.bool_]:
        """Return whether candidates of the catalogue are available at the times of rows `[n]`."""
        available = np.ones(len(rows), bool)
        if self.availability is not None and self.times is not None:
            start, end = self.availability.start[candidates], self.availability.end[candidates]
            available = Availability(start, end).at(self.times[rows])
        return available

    @property
    def num_available(self) -> Ints:
        """The number of available candidates of each row `[num_rows]`."""
        if self.availability is None or self.times is None:
            return np.full(len(self), self.num_candidates)
        return self.availability.number_at(self.times)

    @property
    def listed_history(self) -> Ints:
        """`history`, but -1 for candidates that the catalogue lacks."""
        return np.where(self.history < self.num_candidates, self.history, -1)

    def __len__(self) -> int:
        return len(self.queries)

    def part(self, first: int, last: int) -> "EvaluationQueries":
        """Return the rows `first` to `last - 1`; `inputs` keeps all rows."""
        history = slice(*np.searchsorted(self.history_rows, (first, last)))
        target = slice(*np.searchsorted(self.target_rows, (first, last)))
        return replace(
            self,
            queries=self.queries[first:last],
            query_ids=self.query_ids[first:last],
            history_rows=self.history_rows[history] - first,
            history=self.history[history],
            target_rows=self.target_rows[target] - first,
            targets=self.targets[target],
            target_ids=self.target_ids[target],
            target_weights=self.target_weights[target],
            target_types=None if self.target_types is None else self.target_types[target],
            times=None if self.times is None else self.times[first:last],
            labels={key: values[target] for key, values in self.labels.items()},
        )


@dataclass(frozen=True)
class QuerySample:
    """A sample of the queries of a split, drawn by a hash of their IDs: the same for all models.

    Attributes:
        share: Sampled share; a query is in the sample if its hash, in [0, 1), is below it.
        num_events: Number of held-out events of all queries that can be evaluated.
        num_left_out: Number of held-out events whose history is too short.
        num_without_weight: Number of held-out events with weight 0, which are not targets.
    """

    share: float
    query_ids: frozenset[bytes]
    num_events: int
    num_left_out: int
    num_without_weight: int


@dataclass(frozen=True)
class _Plan:
    """The evaluation queries of a batch of timelines, as slices of its reordered events.

    The history of evaluation query i is `events[starts[i]:cuts[i]]`, its targets are
    `events[cuts[i]:ends[i]]`, and `rows[i]` is its timeline. `is_usable` marks those that have a
    target and enough history.
    """

    events: Ints
    rows: Ints
    starts: Ints
    cuts: Ints
    ends: Ints
    is_usable: npt.NDArray[np.bool_]


def sample_queries(
    files: Sequence[str],
    spec: FeatureSpec,
    config: EvaluationConfig,
    max_queries: float = math.inf,
    weights: EventWeights | None = None,
) -> QuerySample:
    """Sample queries of a split, with about `max_queries` evaluation queries; bounds memory."""
    total, share, num_events, num_left_out, num_without_weight = 0, 1.0, 0, 0, 0
    sampled: dict[bytes, float] = {}
    for timelines in read_timelines(files, spec, _TIMELINES_PER_BATCH, weights):
        plan = _plan(timelines, config)
        num_targets = plan.ends - plan.cuts
        num_events += int(num_targets[plan.is_usable].sum())
        num_left_out += int(num_targets[~plan.is_usable].sum())
        is_weightless = (timelines.is_target.values == 1) & (timelines.weights == 0)
        num_without_weight += int(tf.math.count_nonzero(is_weightless))
        total += np.count_nonzero(plan.is_usable)
        share = min(1.0, max_queries / total) if total else 1.0
        ids = timelines.inputs[spec.query_id].numpy()[np.unique(plan.rows[plan.is_usable])]
        sampled.update(zip(ids.tolist(), _hashes(ids).tolist(), strict=True))
        # The share only shrinks, so queries outside the sample stay outside.
        if share < 1.0:
            sampled = {query: number for query, number in sampled.items() if number < share}
    return QuerySample(share, frozenset(sampled), num_events, num_left_out, num_without_weight)


def read_queries(
    files: Sequence[str],
    spec: FeatureSpec,
    config: EvaluationConfig,
    index_of: IndexOf,
    num_candidates: int,
    block_size: int,
    share: float = 1.0,
    weights: EventWeights | None = None,
    label_types: Mapping[str, tf.DType] | None = None,
    availability: Availability | None = None,
) -> Iterator[EvaluationQueries]:
    """Yield the evaluation queries of a sample (`QuerySample.share`) in blocks.

    Only those that have a target are included. A block has at most `block_size` rows. The catalogue
    has the indices below `num_candidates`. `label_types` are those of `read_timelines`.
    """
    num_queries = 0
    for timelines in read_timelines(files, spec, _TIMELINES_PER_BATCH, weights, label_types):
        plan = _plan(timelines, config)
        is_sampled = _hashes(timelines.inputs[spec.query_id].numpy()) < share
        usable = np.flatnonzero(plan.is_usable & is_sampled[plan.rows])
        ids = timelines.events.values
        indices = index_of(ids)
        times = None if timelines.times is None else timelines.times.values.numpy()
        listed = np.where(indices < num_candidates, indices, -1)
        weight_of = timelines.weights.numpy().astype(np.float64)
        for start in range(0, len(usable), block_size):
            chosen = usable[start : start + block_size]
            rows = plan.rows[chosen]
            history_rows, nth = expand(plan.starts[chosen], plan.cuts[chosen])
            events = plan.events[nth]
            target_rows, nth = expand(plan.cuts[chosen], plan.ends[chosen])
            held_out = plan.events[nth]
            lengths = plan.cuts[chosen] - plan.starts[chosen]
            inputs = {name: tf.gather(values, rows) for name, values in timelines.inputs.items()}
            first_targets = plan.events[plan.cuts[chosen]]
            for name, values in timelines.context.items():
                inputs[name] = tf.gather(values.values, first_targets)
            times_of_rows = None if times is None else times[first_targets]
            if TIME_KEY in inputs:
                inputs[TIME_KEY] = tf.constant(times_of_rows)
            of_events = {HISTORY_KEY: ids}
            if timelines.types is not None and HISTORY_TYPES_KEY in inputs:
                of_events[HISTORY_TYPES_KEY] = timelines.types.values
            for name, values in of_events.items():
                lists = tf.RaggedTensor.from_row_lengths(tf.gather(values, events), lengths)
                inputs[name] = lists.to_tensor("")
            yield EvaluationQueries(
                inputs=inputs,
                queries=rows + num_queries,
                query_ids=inputs[spec.query_id].numpy(),
                history_rows=history_rows,
                history=indices[events],
                target_rows=target_rows,
                targets=listed[held_out],
                target_ids=tf.gather(ids, held_out).numpy(),
                target_weights=weight_of[held_out],
                target_types=(
                    None
                    if timelines.types is None
                    else tf.gather(timelines.types.values, held_out).numpy()
                ),
                num_candidates=num_candidates,
                times=times_of_rows,
                labels={
                    key: tf.gather(column.values, held_out).numpy()
                    for key, column in timelines.labels.items()
                },
                availability=availability,
            )
        num_queries += len(is_sampled)


def read_held_out(files: Sequence[str], spec: FeatureSpec, index_of: IndexOf) -> tuple[Ints, Ints]:
    """Return the times and candidates of all held-out events of a split with timestamps."""
    times, candidates = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for timelines in read_timelines(files, spec, _TIMELINES_PER_BATCH):
        assert timelines.times is not None
        is_target = timelines.is_target.values.numpy() == 1
        times.append(timelines.times.values.numpy()[is_target])
        candidates.append(index_of(timelines.events.values.numpy()[is_target]))
    return np.concatenate(times), np.concatenate(candidates)


def _plan(timelines: RawTimelines, config: EvaluationConfig) -> _Plan:
    offsets = timelines.events.row_splits.numpy()
    is_held_out = timelines.is_target.values.numpy() == 1
    is_target = is_held_out & (timelines.weights.numpy() > 0)
    if config.protocol == "rolling":
        events, cuts = np.arange(len(is_target)), np.flatnonzero(is_target)
        rows, ends = np.searchsorted(offsets, cuts, side="right") - 1, cuts + 1
    else:
        rows = np.arange(len(offsets) - 1)
        timeline = np.repeat(rows, np.diff(offsets))
        # The events of each timeline, with the targets last, and without other held-out events.
        events = np.lexsort((is_target, timeline))
        events = events[(is_target | ~is_held_out)[events]]
        offsets = np.append(0, np.cumsum(np.bincount(timeline[events], minlength=len(rows))))
        ends = offsets[1:]
        cuts = ends - np.bincount(timeline[is_target], minlength=len(rows))
    starts = offsets[rows]
    is_usable = (cuts - starts >= config.min_history) & (ends > cuts)
    return _Plan(events, rows, starts, cuts, ends, is_usable)


def _hashes(query_ids: Ids) -> npt.NDArray[np.float64]:
    return fraction(hash_strings(pa.array(query_ids, pa.binary()), _SEED))
