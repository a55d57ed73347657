"""Measure index backends and choose the cheapest settings that reach the recall target."""

import importlib.util
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from components.index_builder.config import IndexConfig
from components.index_builder.partitioned_index import PartitionedIndex, PartitionedSettings
from components.index_builder.recall import (
    ExactAnswers,
    Vectors,
    exact_answers,
    recall_of_each,
    search_in_batches,
)
from components.index_builder.search_index import ExactIndex, SearchIndex

# With fewer candidates, ScaNN cannot train its 16-centre codebooks well.
_FEWEST_FOR_SCANN = 256
# Up to this many candidates, building an index takes seconds, so several leaf counts are tried.
_FEW_CANDIDATES = 50_000
# Leaf counts to try, as multiples of the square root of the catalogue size. Large catalogues use
# only the last one. With more leaves, most of the search time is spent on ranking them.
_LEAVES_PER_ROOT = {"scann": (1, 2), "partitioned": (2, 4)}
# Numbers of rescored neighbours to try, as multiples of k.
_REORDERS = (2, 3, 4, 8)
# The searched part of the catalogue grows by this factor per step.
_STEP = 1.15
_SMALLEST_SHARE = 0.005
# Standard errors by which the mean recall must exceed the target. If the true recall only equals
# the target, about one sample of queries in seven hundred passes. So the gate, which measures other
# queries, refuses few tuned indexes by chance.
_STANDARD_ERRORS = 3.0
# These are enough if the recall of a trial is further than that from the target.
_FEWEST_QUERIES = 256
_SINGLE_QUERIES = 50
_BYTES_PER_MB = 1_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """The measurements of one combination of settings.

    Attributes:
        recall: Mean recall@k of tuning queries against exact search; of the first 256 if these show
            whether it reaches the target.
        assured_recall: `recall` minus three standard errors; must reach the target.
        query_us: Time per query of the fastest batch of 128.
        num_short: Number of queries with fewer than k results.
    """

    settings: Mapping[str, int | bool]
    recall: float
    assured_recall: float
    query_us: float
    num_short: int

    def reaches(self, recall_target: float) -> bool:
        """Return whether the assured recall reaches the target and no query had too few results."""
        return self.assured_recall >= recall_target and not self.num_short


@dataclass(frozen=True)
class IndexChoice:
    """The chosen index, its settings, the reason for the choice, and all trials."""

    index: SearchIndex
    settings: Mapping[str, int | bool]
    reason: str
    trials: tuple[Trial, ...] = ()


def choose_index(vectors: Vectors, tuning_queries: Vectors, config: IndexConfig) -> IndexChoice:
    """Build the configured index, and tune the settings that the configuration leaves open.

    Tuning takes the cheapest settings whose recall on `tuning_queries` reaches the target. If none
    does, the result is an exact index; with `backend: auto`, `partitioned` is tried before that.

    `vectors` are `[num_candidates, dimension]` and may be memory-mapped. `tuning_queries` are
    embedded real queries `[num_queries, dimension]`. Candidates cannot replace them: queries have
    another distribution, for which an index can have another recall.
    """
    if config.backend == "exact":
        return IndexChoice(ExactIndex(vectors), {}, "as configured")
    if config.backend != "auto":
        return _approximate(config.backend, vectors, tuning_queries, config)
    exact = ExactIndex(vectors)
    queries = tuning_queries if len(tuning_queries) else vectors[:1]
    took_ms = single_query_ms(exact, queries, min(config.k, len(vectors)))
    reason = (
        f"an exact search takes {took_ms:.2f} ms per query; `index.latency_budget_ms` is "
        f"{config.latency_budget_ms:g}"
    )
    log.info("%s", reason)
    if took_ms <= config.latency_budget_ms:
        return IndexChoice(exact, {}, reason)
    del exact  # frees a copy of the catalogue
    if not importlib.util.find_spec("scann"):
        return _approximate("partitioned", vectors, tuning_queries, config)
    choice = _approximate("scann", vectors, tuning_queries, config)
    if choice.index.backend != "exact":
        return choice
    other = _approximate("partitioned", vectors, tuning_queries, config)
    return replace(other, reason=f"{choice.reason}; {other.reason}")


def single_query_ms(index: SearchIndex, queries: Vectors, k: int) -> float:
    """Return the time of the fastest of several single queries in milliseconds."""
    rows = np.resize(queries, (_SINGLE_QUERIES, queries.shape[1]))
    return search_in_batches(index.search, rows, k, batch_size=1)[1] * 1e3


def growing_parts(whole: int) -> Iterator[int]:
    """Yield increasing numbers of leaves or blocks, from about 0.5 % of `whole` to `whole`."""
    part = math.ceil(whole * _SMALLEST_SHARE)
    while part < whole:
        yield part
        part = max(part + 1, math.ceil(part * _STEP))
    yield whole


def _approximate(
    backend: str, vectors: Vectors, tuning_queries: Vectors, config: IndexConfig
) -> IndexChoice:
    """Build an approximate index, or an exact one if no setting reaches the target."""
    if backend == "scann" and len(vectors) < _FEWEST_FOR_SCANN:
        why = f"ScaNN needs at least {_FEWEST_FOR_SCANN} candidates, not {len(vectors)}"
        return _exact_instead(vectors, why)
    leaf_counts = _leaf_counts(config.leaves, len(vectors), _LEAVES_PER_ROOT[backend])
    ladders_of = _scann_ladders if backend == "scann" else _partitioned_ladders
    if config.leaves_to_search and (config.reorder or backend == "partitioned"):
        [[settings]] = ladders_of(leaf_counts[-1], vectors, config)
        index = _build(backend, vectors, settings, config.k)
        index.end_tuning()
        return IndexChoice(index, asdict(settings), "as configured")
    if not len(tuning_queries):
        return _exact_instead(vectors, f"{backend} cannot be tuned without queries")
    exact = exact_answers(vectors, tuning_queries, config.k)
    trials: list[Trial] = []
    chosen, least_us = None, math.inf
    for leaves in leaf_counts:
        ladders = ladders_of(leaves, vectors, config)
        index = _build(backend, vectors, ladders[0][0], config.k)
        settings, least_us = _tune(
            index, ladders, vectors, exact, config.recall_target, least_us, trials
        )
        index.end_tuning()
        if settings is not None:
            index.settings = settings
            chosen = index
    target = f"`index.recall_target` {config.recall_target:g} with confidence"
    if chosen is None:
        best = max(trial.assured_recall for trial in trials)
        why = f"no setting of {backend} reaches {target}: the best of {len(trials)} has recall "
        return _exact_instead(vectors, f"{why}{best:.4f}", trials)
    reason = f"the cheapest of {len(trials)} settings that reaches {target}"
    return IndexChoice(chosen, asdict(chosen.settings), reason, tuple(trials))


def _exact_instead(vectors: Vectors, why: str, trials: Sequence[Trial] = ()) -> IndexChoice:
    log.warning("%s; building the exact index", why)
    return IndexChoice(ExactIndex(vectors), {}, f"exact, because {why}", tuple(trials))


def _build(backend: str, vectors: Vectors, settings: Any, k: int) -> SearchIndex:
    if backend == "partitioned":
        return PartitionedIndex(vectors, settings)
    # Imported here, because the other backends work without ScaNN.
    from components.index_builder.scann_index import ScannIndex

    return ScannIndex(vectors, min(k, len(vectors)), settings)


def _leaf_counts(configured: int | None, num_candidates: int, roots: tuple[int, ...]) -> list[int]:
    if configured:
        return [min(configured, num_candidates)]
    tried = roots if num_candidates <= _FEW_CANDIDATES else roots[-1:]
    root = math.sqrt(num_candidates)
    return sorted({min(num_candidates, round(times * root)) for times in tried})


def _scann_ladders(leaves: int, vectors: Vectors, config: IndexConfig) -> list[list[Any]]:
    """Return sequences of settings to try, each from cheap to expensive."""
    from components.index_builder.scann_index import ScannSettings, index_bytes

    num_candidates, k = len(vectors), min(config.k, len(vectors))
    float_bytes = index_bytes(num_candidates, vectors.shape[1], int8=False)
    limit_mb = config.int8_above_mb
    int8 = limit_mb is not None and float_bytes > limit_mb * _BYTES_PER_MB
    reorders = [config.reorder] if config.reorder else [times * k for times in _REORDERS]
    parts = [config.leaves_to_search] if config.leaves_to_search else growing_parts(leaves)
    parts = [min(part, leaves) for part in parts]
    return [
        [ScannSettings(leaves, part, reorder, int8) for part in parts]
        for reorder in sorted({min(number, num_candidates) for number in reorders})
    ]


def _partitioned_ladders(leaves: int, vectors: Vectors, config: IndexConfig) -> list[list[Any]]:
    """Return sequences of settings to try, each from cheap to expensive."""
    of_leaves = PartitionedSettings.of_leaves
    if config.leaves_to_search:
        return [[of_leaves(leaves, min(config.leaves_to_search, leaves), len(vectors))]]
    most = of_leaves(leaves, leaves, len(vectors))
    parts = growing_parts(most.blocks_to_search)
    return [[replace(most, blocks_to_search=part) for part in parts]]


def _tune(
    index: SearchIndex,
    ladders: Sequence[Sequence[Any]],
    vectors: Vectors,
    exact: ExactAnswers,
    recall_target: float,
    least_us: float,
    trials: list[Trial],
) -> tuple[Any | None, float]:
    """Find the first settings of each ladder that reach the target, unless they are too slow.

    Recall and cost rise along a ladder, so it is bisected. Trials are added to `trials`. Return the
    cheapest settings that take less than `least_us` microseconds per query and reach the target, or
    None, and their time.
    """
    chosen = None
    for ladder in ladders:
        low, high, limit_us = 0, len(ladder), least_us
        while low < high:
            middle = (low + high) // 2
            index.settings = settings = ladder[middle]
            trial = _measure(index, vectors, exact, recall_target)
            trials.append(trial)
            is_slow, reaches = trial.query_us >= limit_us, trial.reaches(recall_target)
            if reaches and trial.query_us < least_us:
                chosen, least_us = settings, trial.query_us
            low, high = (low, middle) if reaches or is_slow else (middle + 1, high)
    return chosen, least_us


def _measure(
    index: SearchIndex, vectors: Vectors, exact: ExactAnswers, recall_target: float
) -> Trial:
    number = len(exact.queries)
    for part in map(exact.first, sorted({min(_FEWEST_QUERIES, number), number})):
        found, seconds = search_in_batches(index.attempt, part.queries, part.k)
        shares = recall_of_each(vectors, part, found)
        recall = float(shares.mean())
        margin = _STANDARD_ERRORS * float(shares.std() / math.sqrt(len(shares)))
        if abs(recall - recall_target) > margin:
            break
    return Trial(
        asdict(index.settings),
        round(recall, 4),
        round(recall - margin, 4),
        round(seconds * 1e6, 1),
        int((found < 0).any(axis=1).sum()),
    )
