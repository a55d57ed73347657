"""Evaluation queries: requests that a protocol makes from timelines with held-out events."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from components.interactions.stable_hash import fraction, hash_strings
from components.retrieval_evaluator.baselines.cooccurrence_scores import Ints, expand
from components.retrieval_evaluator.config import EvaluationConfig
from models.features.spec import HISTORY_KEY, FeatureSpec
from models.input.raw_examples import RawTimelines, read_timelines

# Timelines parsed at a time. With `rolling`, each can give several evaluation queries.
_TIMELINES_PER_BATCH = 1024
# Differs from the seeds of the hashes that split the data.
_SEED = 20_240_101

Ids = npt.NDArray[np.object_]


@dataclass(frozen=True)
class EvaluationQueries:
    """A block of evaluation queries, with candidates as catalogue indices; -1 if unknown.

    Attributes:
        inputs: Inputs of a client's request, including the history
            (`models.input.raw_inputs.query_inputs`).
        queries: Number of each row's query, counted over the split from 0 `[num_rows]`.
        query_ids: ID of each row's query as bytes `[num_rows]`.
        history_rows: Row of each history event, ascending `[num_history]`.
        history: Candidate of each history event, oldest first within a row `[num_history]`.
        target_rows: Row of each target, ascending `[num_targets]`.
        targets: Held-out candidates `[num_targets]`.
        target_ids: IDs of the targets as bytes, including those not in the catalogue
            `[num_targets]`.
    """

    inputs: Mapping[str, tf.Tensor]
    queries: Ints
    query_ids: Ids
    history_rows: Ints
    history: Ints
    target_rows: Ints
    targets: Ints
    target_ids: Ids

    def __len__(self) -> int:
        return len(self.queries)

    def part(self, first: int, last: int) -> "EvaluationQueries":
        """Return the rows `first` to `last - 1`; `inputs` keeps all rows."""
        history = slice(*np.searchsorted(self.history_rows, (first, last)))
        target = slice(*np.searchsorted(self.target_rows, (first, last)))
        return EvaluationQueries(
            inputs=self.inputs,
            queries=self.queries[first:last],
            query_ids=self.query_ids[first:last],
            history_rows=self.history_rows[history] - first,
            history=self.history[history],
            target_rows=self.target_rows[target] - first,
            targets=self.targets[target],
            target_ids=self.target_ids[target],
        )


@dataclass(frozen=True)
class _Plan:
    """The evaluation queries of a batch of timelines, as slices of the batch's events.

    The history of evaluation query i is `history_events[history_starts[i]:history_ends[i]]`; its
    targets are defined in the same way. `rows` contains the timeline of each evaluation query.
    """

    rows: Ints
    history_events: Ints
    history_starts: Ints
    history_ends: Ints
    target_events: Ints
    target_starts: Ints
    target_ends: Ints


@dataclass(frozen=True)
class QuerySample:
    """A sample of the queries of a split.

    Attributes:
        share: Sampled share; a query is in the sample if its hash, in [0, 1), is below it.
        query_ids: IDs of the queries in the sample, as bytes.
    """

    share: float
    query_ids: frozenset[bytes]


class EvaluationQueryReader:
    """Reads the evaluation queries of a split in blocks.

    The protocol `from_cut` gives one evaluation query per query, with all events that are not held
    out as the history. `rolling` gives one per held-out event, with all earlier events as the
    history, including held-out ones.

    Args:
        spec: IDs and features.
        index_of: Table of catalogue indices by candidate ID; -1 if unknown.
        config: Protocol and minimum history.

    Attributes:
        num_left_out: Number of held-out events read so far whose history is too short.
        num_not_drawn: Number of held-out events read so far of queries outside the sample.
    """

    def __init__(
        self, spec: FeatureSpec, index_of: tf.lookup.StaticHashTable, config: EvaluationConfig
    ) -> None:
        self._spec = spec
        self._index_of = index_of
        self._plan_of = _rolling if config.protocol == "rolling" else _from_cut
        self._min_history = config.min_history
        self.num_left_out = 0
        self.num_not_drawn = 0

    def sample(self, files: Sequence[str], max_queries: float = math.inf) -> QuerySample:
        """Sample queries by a hash of their IDs, so that all models get the same sample.

        Args:
            files: Files of the split.
            max_queries: Approximate maximum number of evaluation queries; it also bounds memory.
        """
        total, share = 0, 1.0
        sampled: dict[bytes, float] = {}
        for timelines in read_timelines(files, self._spec, _TIMELINES_PER_BATCH):
            plan, usable = self._plan(timelines)
            total += len(usable)
            share = min(1.0, max_queries / total) if total else 1.0
            ids = timelines.inputs[self._spec.query_id].numpy()[np.unique(plan.rows[usable])]
            sampled.update(zip(ids.tolist(), _hashes(ids).tolist(), strict=True))
            # The share only shrinks, so queries outside the sample stay outside.
            if share < 1.0:
                sampled = {query: number for query, number in sampled.items() if number < share}
        return QuerySample(share, frozenset(sampled))

    def read(
        self, files: Sequence[str], block_size: int, sample: QuerySample | None = None
    ) -> Iterator[EvaluationQueries]:
        """Yield blocks of at most `block_size` evaluation queries that have a target."""
        share = 1.0 if sample is None else sample.share
        num_queries = 0
        for timelines in read_timelines(files, self._spec, _TIMELINES_PER_BATCH):
            yield from self._blocks(timelines, num_queries, block_size, share)
            num_queries += int(timelines.events.nrows())

    def _plan(self, timelines: RawTimelines) -> tuple[_Plan, Ints]:
        """Return all evaluation queries, and which of them have a target and enough history."""
        offsets = timelines.events.row_splits.numpy()
        plan = self._plan_of(offsets, timelines.is_target.values.numpy() == 1)
        enough = plan.history_ends - plan.history_starts >= self._min_history
        return plan, np.flatnonzero(enough & (plan.target_ends > plan.target_starts))

    def _blocks(
        self, timelines: RawTimelines, first_query: int, block_size: int, share: float
    ) -> Iterator[EvaluationQueries]:
        plan, usable = self._plan(timelines)
        num_targets = plan.target_ends - plan.target_starts
        self.num_left_out += int(num_targets.sum() - num_targets[usable].sum())
        if share < 1.0:
            query_ids = timelines.inputs[self._spec.query_id].numpy()
            is_sampled = (_hashes(query_ids) < share)[plan.rows[usable]]
            self.num_not_drawn += int(num_targets[usable[~is_sampled]].sum())
            usable = usable[is_sampled]
        ids = timelines.events.values
        indices = self._index_of.lookup(ids).numpy()
        for start in range(0, len(usable), block_size):
            chosen = usable[start : start + block_size]
            history_rows, nth = expand(plan.history_starts[chosen], plan.history_ends[chosen])
            events = plan.history_events[nth]
            target_rows, nth = expand(plan.target_starts[chosen], plan.target_ends[chosen])
            held_out = plan.target_events[nth]
            rows = plan.rows[chosen]
            inputs = {
                name: tf.gather(values, rows)
                for name, values in timelines.inputs.items()
                if name != HISTORY_KEY
            }
            lengths = np.bincount(history_rows, minlength=len(chosen))
            history = tf.RaggedTensor.from_row_lengths(tf.gather(ids, events), lengths)
            inputs[HISTORY_KEY] = history.to_tensor("")
            yield EvaluationQueries(
                inputs=inputs,
                queries=rows + first_query,
                query_ids=inputs[self._spec.query_id].numpy(),
                history_rows=history_rows,
                history=indices[events],
                target_rows=target_rows,
                targets=indices[held_out],
                target_ids=tf.gather(ids, held_out).numpy(),
            )


def _hashes(query_ids: Ids) -> npt.NDArray[np.float64]:
    return fraction(hash_strings(pa.array(query_ids, pa.binary()), _SEED))


def _rolling(offsets: Ints, is_target: npt.NDArray[np.bool_]) -> _Plan:
    targets = np.flatnonzero(is_target)
    rows = np.searchsorted(offsets, targets, side="right") - 1
    each = np.arange(len(targets))
    all_events = np.arange(len(is_target))
    return _Plan(rows, all_events, offsets[rows], targets, targets, each, each + 1)


def _from_cut(offsets: Ints, is_target: npt.NDArray[np.bool_]) -> _Plan:
    target_offsets = np.concatenate(([0], np.cumsum(is_target)))[offsets]
    history_offsets = offsets - target_offsets
    return _Plan(
        np.arange(len(offsets) - 1),
        np.flatnonzero(~is_target),
        history_offsets[:-1],
        history_offsets[1:],
        np.flatnonzero(is_target),
        target_offsets[:-1],
        target_offsets[1:],
    )
