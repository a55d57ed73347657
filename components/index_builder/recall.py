"""Recall and hit rate of an index, measured with sample queries against exact search."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from components.index_builder.search_index import SearchResult
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines
from models.towers.saved_towers import SavedTowers

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]
Search = Callable[[tf.Tensor, tf.Tensor], SearchResult]

QUERIES_PER_BATCH = 128
_TIMELINES_PER_BATCH = 256
# Maximum number of scores computed at a time: 16 million float32 take 64 MB.
_SCORES_PER_BLOCK = 16_000_000
# Scores that differ by less than this share of the largest score count as equal, because the order
# of summation can change them by as much.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class SampleQueries:
    """Embedded real queries: tuning queries tune the index, judging queries measure the result.

    Attributes:
        tuning: `[num_tuning, dimension]`; there may be none.
        judging: `[num_judging, dimension]`; there is at least one.
        inputs: Raw inputs of the judging queries in batches.
        target_rows: Row in `judging` of each held-out event's query `[num_events]`.
        targets: Candidate index of each held-out event, -1 if the catalogue lacks it
            `[num_events]`.
        target_ids: Their candidate IDs `[num_events]`.
    """

    tuning: Vectors
    judging: Vectors
    inputs: Sequence[Mapping[str, tf.Tensor]]
    target_rows: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    target_ids: npt.NDArray[np.object_]

    @classmethod
    def read(
        cls,
        towers: SavedTowers,
        files: Sequence[str],
        spec: FeatureSpec,
        ids: Iterable[pa.Array],
        count: int,
    ) -> "SampleQueries":
        """Embed the first queries of a split, and use them alternately for judging and tuning.

        There are `count` queries of each kind, or half of all queries if there are fewer. `ids` are
        the candidate IDs in blocks, in index order.

        Raises:
            ValueError: The files have no timelines.
        """
        vectors: list[Vectors] = []
        inputs: list[Mapping[str, tf.Tensor]] = []
        rows: list[npt.NDArray[np.int64]] = []
        target_ids: list[bytes] = []
        num_read = 0
        for batch in read_timelines(files, spec, _TIMELINES_PER_BATCH):
            vectors.append(towers.embed_queries(batch.inputs))
            # Only the last batch may have an odd number of timelines.
            judging = slice(0, 2 * count - num_read, 2)
            inputs.append({name: values[judging] for name, values in batch.inputs.items()})
            rows.append(batch.targets.value_rowids().numpy() + num_read)
            target_ids += batch.targets.values.numpy().tolist()
            num_read += len(vectors[-1])
            if num_read >= 2 * count:
                break
        if not vectors:
            raise ValueError(
                f"the index is measured with queries, but none are in {', '.join(files[:3])}; "
                "hold out events of at least one query with the settings of `split`"
            )
        queries = np.concatenate(vectors)[: 2 * count]
        target_rows = np.concatenate(rows)
        judged = (target_rows < len(queries)) & (target_rows % 2 == 0)
        return cls(
            tuning=queries[1::2],
            judging=queries[0::2],
            inputs=inputs,
            target_rows=target_rows[judged] // 2,
            targets=_indices_of(ids, target_ids)[judged],
            target_ids=np.array(target_ids, np.object_)[judged],
        )

    def hit_rate(self, found: Indices | npt.NDArray[np.object_]) -> float:
        """Return the share of held-out events whose candidate was found; NaN without events.

        Events whose candidate the catalogue lacks are ignored, because no search can find it.
        `found` has the candidate indices, or IDs, for each judging query `[num_judging, k]`.
        """
        known = self.targets >= 0
        if not known.any():
            return float("nan")
        targets = self.target_ids if found.dtype == np.object_ else self.targets
        answers = found[self.target_rows[known]]
        return float((answers == targets[known, None]).any(axis=1).mean())


@dataclass(frozen=True)
class ExactAnswers:
    """Queries `[num_queries, dimension]` and their exact results `[num_queries, k]`, best first."""

    queries: Vectors
    indices: Indices
    scores: Vectors

    @property
    def k(self) -> int:
        """The number of candidates per query."""
        return self.indices.shape[1]

    def first(self, number: int) -> "ExactAnswers":
        """Return the first queries with their answers."""
        return ExactAnswers(self.queries[:number], self.indices[:number], self.scores[:number])


def exact_answers(vectors: Vectors, queries: Vectors, k: int) -> ExactAnswers:
    """Return the exact k best candidates of each query, scoring the catalogue block by block.

    `vectors` may be memory-mapped. If the catalogue has fewer than k candidates, all are returned.
    """
    k = min(k, len(vectors))
    best, indices = np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int32)
    for start in range(0, len(queries), QUERIES_PER_BATCH):
        rows = slice(start, start + QUERIES_PER_BATCH)
        indices[rows], best[rows] = _best_of_blocks(vectors, queries[rows], k)
    return ExactAnswers(queries, indices, best)


def _best_of_blocks(vectors: Vectors, queries: Vectors, k: int) -> tuple[Indices, Vectors]:
    best = np.zeros((len(queries), 0), np.float32)
    indices = np.zeros((len(queries), 0), np.int32)
    rows = max(k, _SCORES_PER_BLOCK // len(queries))
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows]
        scores, found = tf.math.top_k(
            tf.matmul(queries, block, transpose_b=True), min(k, len(block))
        )
        best = np.concatenate([best, scores.numpy()], axis=1)
        indices = np.concatenate([indices, found.numpy() + start], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
    return indices, best


def recall_of_each(vectors: Vectors, exact: ExactAnswers, found: Indices) -> Vectors:
    """Return the recall@k of each query `[num_queries]`.

    `found` has candidate indices `[num_queries, k]`, -1 for missing ones. A candidate counts as
    correct if it scores at least as much as the last exact result: of candidates with equal scores,
    exact search returns arbitrary ones.
    """
    shares = np.zeros(len(found), np.float32)
    for row, (candidates, query, scores) in enumerate(
        zip(found, exact.queries, exact.scores, strict=True)
    ):
        least = scores[-1] - _ROUNDING * np.abs(scores).max()
        found_scores = vectors[candidates[candidates >= 0]] @ query
        shares[row] = np.count_nonzero(found_scores >= least) / exact.k
    return shares


def search_in_batches(
    search: Search, queries: Vectors, k: int, batch_size: int = QUERIES_PER_BATCH
) -> tuple[Indices, float]:
    """Search in a graph, as the served model does: `SearchIndex.search` or `attempt`.

    Return candidate indices `[num_queries, k]`, -1 for candidates without a finite score, and the
    time per query of the fastest batch in seconds, which other work of the machine changes least.
    """
    traced = tf.function(search, autograph=False).get_concrete_function(
        tf.TensorSpec([None, queries.shape[1]]), tf.TensorSpec([], tf.int32)
    )
    count = tf.constant(k)
    traced(tf.constant(queries[:1]), count)  # the first call builds the searcher
    found, seconds = [], []
    for start in range(0, len(queries), batch_size):
        batch = tf.constant(queries[start : start + batch_size])
        started = time.perf_counter()
        indices, scores = traced(batch, count)
        seconds.append((time.perf_counter() - started) / len(batch))
        found.append(np.where(np.isfinite(scores), indices, -1))
    return np.concatenate(found), min(seconds)


def _indices_of(ids: Iterable[pa.Array], candidates: list[bytes]) -> npt.NDArray[np.int64]:
    """Return the index of each candidate; -1 if the catalogue lacks it."""
    index_of: dict[bytes, int] = dict.fromkeys(candidates, -1)
    keys = pa.array(list(index_of), pa.binary())
    first = 0
    for block in ids:
        # A catalogue can have millions of IDs, so only the wanted ones become Python objects.
        for row in np.flatnonzero(pa.compute.is_in(block, keys).to_numpy(zero_copy_only=False)):
            index_of[block[row].as_py()] = first + int(row)
        first += len(block)
    return np.array([index_of[candidate] for candidate in candidates], np.int64)
