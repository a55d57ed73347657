"""Assign each event to a split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.interactions.config import SplitConfig
from components.interactions.sources.columns import TIME_US
from components.interactions.stable_hash import Hashes, fraction, hash_strings, mix

TRAIN, EVAL, TEST = 0, 1, 2

SplitCodes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Cut:
    """The first times of `eval` and, if there is one, `test`, in microseconds since 1970."""

    eval_us: int
    test_us: int | None = None


def assign_splits(
    events: pa.Table, query_id: str, candidate_id: str, config: SplitConfig, cut: Cut | None
) -> SplitCodes:
    """Return the split of each event [n]: `TRAIN`, `EVAL` or `TEST`."""
    if config.method == "temporal":
        if cut is None:
            raise ValueError("method temporal needs a cut")
        return _temporal(events[TIME_US].to_numpy(), cut)
    if config.method == "leave_last_out":
        queries = np.asarray(events[query_id].combine_chunks().indices)
        return _leave_last_out(queries, with_test=config.with_test)
    return _random(events, query_id, candidate_id, config)


def timeline_starts(queries: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the start index of each run of equal values."""
    return np.flatnonzero(np.concatenate(([True], queries[1:] != queries[:-1]))[: len(queries)])


def _temporal(times: npt.NDArray[np.int64], cut: Cut) -> SplitCodes:
    codes = (times >= cut.eval_us).astype(np.int8)
    if cut.test_us is not None:
        codes[times >= cut.test_us] = TEST
    return codes


def _leave_last_out(queries: npt.NDArray[Any], *, with_test: bool) -> SplitCodes:
    starts = timeline_starts(queries)
    lengths = np.diff(starts, append=len(queries))
    # A timeline must keep an event to train on.
    held_out = (EVAL, TEST) if with_test else (EVAL,)
    last = (starts + lengths - 1)[lengths > len(held_out)]
    codes = np.zeros(len(queries), np.int8)
    for back, split in enumerate(reversed(held_out)):
        codes[last - back] = split
    return codes


def _random(events: pa.Table, query_id: str, candidate_id: str, config: SplitConfig) -> SplitCodes:
    query_hashes = _hash_column(events[query_id], config.seed)
    candidate_hashes = _hash_column(events[candidate_id], config.seed + 1)
    pairs = mix(query_hashes ^ mix(candidate_hashes))
    if TIME_US in events.schema.names:
        distinguishing = events[TIME_US].to_numpy().view(np.uint64)
    else:
        distinguishing = _earlier_occurrences(pairs)
    share = fraction(mix(pairs ^ mix(distinguishing)))
    codes = np.zeros(len(share), np.int8)
    codes[share < config.test_fraction + config.eval_fraction] = EVAL
    codes[share < config.test_fraction] = TEST
    return codes


def _hash_column(column: pa.ChunkedArray, seed: int) -> Hashes:
    encoded = column.combine_chunks()
    per_event: Hashes = hash_strings(encoded.dictionary, seed)[np.asarray(encoded.indices)]
    return per_event


def _earlier_occurrences(pairs: Hashes) -> Hashes:
    """Return the number of earlier occurrences of each pair [n]."""
    order = np.argsort(pairs, kind="stable")
    starts = timeline_starts(pairs[order])
    lengths = np.diff(starts, append=len(pairs))
    counts = np.empty(len(pairs), np.uint64)
    counts[order] = np.arange(len(pairs)) - np.repeat(starts, lengths)
    return counts
