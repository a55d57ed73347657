"""Turns timelines with held-out events into questions, by the protocol of the evaluation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from components.interactions.stable_hash import fraction, hash_strings
from components.retrieval_evaluator.config import EvaluationConfig
from models.features.spec import HISTORY_KEY, FeatureSpec
from models.input.raw_examples import RawTimelines, read_timelines

# Timelines that are parsed together; their questions are many more where the protocol is rolling.
_TIMELINES_A_BATCH = 1024
# Apart from the hashes that split the data.
_SEED = 20_240_101

Indices = npt.NDArray[np.int64]
Ids = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Questions:
    """A block of questions with candidates as indices into the catalogue; -1 is unknown.

    Attributes:
        inputs: What a client would send (`models.input.raw_inputs.query_inputs`), history included.
        queries: Running number of each question's query over the split, from 0 [num_questions].
        query_ids: Its id as bytes [num_questions].
        history_rows: Ascending question of each event of a history [num_history].
        history: The events, oldest first within a question [num_history].
        target_rows: Ascending question of each target [num_targets].
        targets: Candidates held out [num_targets].
        target_ids: Their ids as bytes, also of those that the catalogue lacks [num_targets].
    """

    inputs: Mapping[str, tf.Tensor]
    queries: Indices
    query_ids: Ids
    history_rows: Indices
    history: Indices
    target_rows: Indices
    targets: Indices
    target_ids: Ids

    def __len__(self) -> int:
        return len(self.queries)

    def part(self, first: int, last: int) -> "Questions":
        """Returns the questions `first` to `last`, without it; `inputs` stay whole."""
        history = slice(*np.searchsorted(self.history_rows, (first, last)))
        target = slice(*np.searchsorted(self.target_rows, (first, last)))
        return Questions(
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
    """Questions of a batch of timelines as slices of places in its events.

    The history of question i are the events at `history_pool[history_starts[i]:history_ends[i]]`,
    and likewise its targets.
    """

    rows: Indices
    history_pool: Indices
    history_starts: Indices
    history_ends: Indices
    target_pool: Indices
    target_starts: Indices
    target_ends: Indices


@dataclass(frozen=True)
class Draw:
    """Which queries of a split are asked.

    Attributes:
        share: Of the queries that could be asked, by their hash.
        query_ids: Of those that are asked, as bytes.
    """

    share: float
    query_ids: frozenset[bytes]


class QuestionReader:
    """Reads the questions of a split in blocks.

    `from_cut` asks once for each query, with all its other events as the history. `rolling` asks
    once for each held-out event, with everything before it as the history, held-out events too.

    Where there are more questions than `max_questions`, queries are drawn by a hash of their ids,
    each with all its questions: the same ones for every model.

    Args:
        spec: Ids and features.
        index_of: Index in the catalogue by candidate id; -1 for unknown.
        config: The protocol, and how much history a question needs.
        max_questions: About how many to ask; None: all.

    Attributes:
        num_left_out: Held-out events so far that nobody was asked about, for want of history.
        num_not_drawn: Held-out events so far of queries that were not drawn.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        index_of: tf.lookup.StaticHashTable,
        config: EvaluationConfig,
        max_questions: int | None = None,
    ) -> None:
        self._spec = spec
        self._index_of = index_of
        self._rolling = config.protocol == "rolling"
        self._min_history = config.min_history
        self._max_questions = max_questions
        self.num_left_out = 0
        self.num_not_drawn = 0

    def draw(self, files: Sequence[str]) -> Draw:
        """Chooses the queries to ask, in memory for about `max_questions` of them."""
        most = math.inf if self._max_questions is None else self._max_questions
        total, share = 0, 1.0
        drawn: dict[bytes, float] = {}
        for timelines in read_timelines(files, self._spec, _TIMELINES_A_BATCH):
            plan, asked = self._plan(timelines)
            total += len(asked)
            share = min(1.0, most / total) if total else 1.0
            ids = timelines.inputs[self._spec.query_id].numpy()[np.unique(plan.rows[asked])]
            drawn.update(zip(ids.tolist(), _places(ids).tolist(), strict=True))
            # The share only shrinks: what it leaves out now, it leaves out in the end.
            if share < 1.0:
                drawn = {query: place for query, place in drawn.items() if place < share}
        return Draw(share, frozenset(drawn))

    def read(
        self, files: Sequence[str], block_size: int, draw: Draw | None = None
    ) -> Iterator[Questions]:
        """Yields blocks of at most `block_size` questions, each with a target.

        Args:
            files: Of the split.
            block_size: Questions in a block.
            draw: Of the same files; None: drawn here, if questions are limited.
        """
        if draw is None and self._max_questions is not None:
            draw = self.draw(files)
        share = 1.0 if draw is None else draw.share
        num_queries = 0
        for timelines in read_timelines(files, self._spec, _TIMELINES_A_BATCH):
            yield from self._blocks(timelines, num_queries, block_size, share)
            num_queries += int(timelines.events.nrows())

    def _plan(self, timelines: RawTimelines) -> tuple["_Plan", Indices]:
        """Returns what a batch could be asked, and which of it has enough history and a target."""
        offsets = timelines.events.row_splits.numpy()
        is_target = timelines.is_target.values.numpy() == 1
        plan = _rolling(offsets, is_target) if self._rolling else _from_cut(offsets, is_target)
        enough = plan.history_ends - plan.history_starts >= self._min_history
        return plan, np.flatnonzero(enough & (plan.target_ends > plan.target_starts))

    def _blocks(
        self, timelines: RawTimelines, first_query: int, block_size: int, share: float
    ) -> Iterator[Questions]:
        plan, asked = self._plan(timelines)
        num_targets = plan.target_ends - plan.target_starts
        self.num_left_out += int(num_targets.sum() - num_targets[asked].sum())
        if share < 1.0:
            query_ids = timelines.inputs[self._spec.query_id].numpy()
            drawn = _places(query_ids) < share
            self.num_not_drawn += int(num_targets[asked[~drawn[plan.rows[asked]]]].sum())
            asked = asked[drawn[plan.rows[asked]]]
        ids = timelines.events.values
        indices = self._index_of.lookup(ids).numpy()
        for start in range(0, len(asked), block_size):
            some = asked[start : start + block_size]
            history_rows, places = _expand(plan.history_starts[some], plan.history_ends[some])
            events = plan.history_pool[places]
            target_rows, places = _expand(plan.target_starts[some], plan.target_ends[some])
            held_out = plan.target_pool[places]
            rows = plan.rows[some]
            inputs = {
                name: tf.gather(values, rows)
                for name, values in timelines.inputs.items()
                if name != HISTORY_KEY
            }
            lengths = np.bincount(history_rows, minlength=len(some))
            history = tf.RaggedTensor.from_row_lengths(tf.gather(ids, events), lengths)
            inputs[HISTORY_KEY] = history.to_tensor("")
            yield Questions(
                inputs=inputs,
                queries=rows + first_query,
                query_ids=inputs[self._spec.query_id].numpy(),
                history_rows=history_rows,
                history=indices[events],
                target_rows=target_rows,
                targets=indices[held_out],
                target_ids=tf.gather(ids, held_out).numpy(),
            )


def _places(query_ids: Ids) -> npt.NDArray[np.float64]:
    """Returns where each query stands among all, by a hash of its id, in [0, 1)."""
    return fraction(hash_strings(pa.array(query_ids, pa.binary()), _SEED))


def _rolling(offsets: Indices, is_target: npt.NDArray[np.bool_]) -> _Plan:
    """Asks for each held-out event, from all events of its timeline that stand before it."""
    targets = np.flatnonzero(is_target)
    rows = np.searchsorted(offsets, targets, side="right") - 1
    each = np.arange(len(targets))
    everything = np.arange(len(is_target))
    return _Plan(rows, everything, offsets[rows], targets, targets, each, each + 1)


def _from_cut(offsets: Indices, is_target: npt.NDArray[np.bool_]) -> _Plan:
    """Asks each timeline once for all its held-out events, from all its others."""
    held_out = np.concatenate(([0], np.cumsum(is_target)))[offsets]
    kept = offsets - held_out
    rows = np.arange(len(offsets) - 1)
    return _Plan(
        rows,
        np.flatnonzero(~is_target),
        kept[:-1],
        kept[1:],
        np.flatnonzero(is_target),
        held_out[:-1],
        held_out[1:],
    )


def _expand(starts: Indices, ends: Indices) -> tuple[Indices, Indices]:
    """Returns the slice's number and the place of everything in the slices, one after another."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) - np.repeat(before - starts, lengths)
