"""Chooses the backend and its settings by measuring them, and builds the index."""

import importlib.util
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Generic

from components.index_builder.config import IndexConfig
from components.index_builder.partitioned_index import PartitionedIndex, PartitionedSettings
from components.index_builder.recall import Vectors, exact_answers
from components.index_builder.search_index import ExactIndex, SearchIndex
from components.index_builder.tuning import (
    Setting,
    SettingsT,
    Trial,
    TunableIndex,
    growing_parts,
    single_query_ms,
    tune,
)

if TYPE_CHECKING:
    from components.index_builder.scann_index import ScannIndex, ScannSettings

# With fewer candidates, ScaNN cannot train its 16-centre codebooks well.
_FEWEST_FOR_SCANN = 256
# Up to this many candidates, building an index takes seconds, so several leaf counts are tried.
_FEW_CANDIDATES = 200_000
# Leaf counts to try, as multiples of the square root of the catalogue size. Large catalogues use
# only the last one.
_SCANN_LEAVES = (1, 2)
_PARTITIONED_LEAVES = (2, 4)
# Numbers of rescored neighbours to try, as multiples of k.
_REORDERS = (2, 4, 8)
_BYTES_PER_MB = 1_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexChoice:
    """The chosen index, its settings, the reason for the choice, and all trials."""

    index: SearchIndex
    settings: Setting
    reason: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class _Plan(Generic[SettingsT]):
    """The settings of a backend that tuning can try.

    Attributes:
        is_configured: Whether the configuration fixes the search settings, so there is no tuning.
        leaf_counts: Leaf counts to try.
        build: Builds an index from a leaf count, with default search settings.
        ladders: Returns sequences of search settings to try, each from cheap to expensive.
    """

    backend: str
    is_configured: bool
    leaf_counts: list[int]
    build: Callable[[int], TunableIndex[SettingsT]]
    ladders: Callable[[SettingsT], Iterable[Iterable[SettingsT]]]


def choose_index(vectors: Vectors, tuning_queries: Vectors, config: IndexConfig) -> IndexChoice:
    """Build the configured index, and tune the settings that the configuration leaves open.

    Tuning takes the cheapest settings whose recall on `tuning_queries` reaches the target. If none
    does, the result is an exact index; with `backend: auto`, `partitioned` is tried before that.

    Args:
        vectors: `[num_candidates, dimension]`; may be memory-mapped.
        tuning_queries: Embedded real queries `[num_queries, dimension]`. Candidates cannot replace
            them: queries have another distribution, for which an index can have another recall.
        config: Settings of the index.
    """
    if config.backend != "auto":
        return _of_backend(config.backend, vectors, tuning_queries, config)
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
    failures = []
    if importlib.util.find_spec("scann"):
        choice = _of_backend("scann", vectors, tuning_queries, config)
        if choice.index.backend != "exact":
            return choice
        failures.append(choice.reason)
    choice = _of_backend("partitioned", vectors, tuning_queries, config)
    return replace(choice, reason="; ".join([*failures, choice.reason]))


def _of_backend(
    backend: str, vectors: Vectors, tuning_queries: Vectors, config: IndexConfig
) -> IndexChoice:
    if backend == "exact":
        return IndexChoice(ExactIndex(vectors), {}, "as configured")
    if backend == "partitioned":
        return _approximate(_partitioned_plan(vectors, config), vectors, tuning_queries, config)
    if len(vectors) < _FEWEST_FOR_SCANN:
        return _exact_instead(
            vectors, f"ScaNN needs at least {_FEWEST_FOR_SCANN} candidates, not {len(vectors)}"
        )
    return _approximate(_scann_plan(vectors, config), vectors, tuning_queries, config)


def _approximate(
    plan: _Plan[SettingsT], vectors: Vectors, tuning_queries: Vectors, config: IndexConfig
) -> IndexChoice:
    if plan.is_configured or not len(tuning_queries):
        index = plan.build(plan.leaf_counts[-1])
        index.end_tuning()
        reason = "as configured" if plan.is_configured else "not tuned: there are no queries"
        return IndexChoice(index, asdict(index.settings), reason)
    exact = exact_answers(vectors, tuning_queries, config.k)
    trials: list[Trial] = []
    chosen, least_us = None, math.inf
    for leaves in plan.leaf_counts:
        index = plan.build(leaves)
        ladders = plan.ladders(index.settings)
        tried, settings, query_us = tune(
            index, ladders, vectors, exact, config.recall_target, least_us
        )
        index.end_tuning()
        trials += tried
        if settings is not None:
            index.settings = settings
            chosen, least_us = index, query_us
    if chosen is None:
        best = max(trial.assured_recall for trial in trials)
        return _exact_instead(
            vectors,
            f"no setting of {plan.backend} reaches `index.recall_target` {config.recall_target:g} "
            f"with confidence: the best of {len(trials)} has recall {best:.4f}",
            tuple(trials),
        )
    reason = (
        f"the cheapest of {len(trials)} settings that reaches `index.recall_target` "
        f"{config.recall_target:g} with confidence"
    )
    return IndexChoice(chosen, asdict(chosen.settings), reason, tuple(trials))


def _exact_instead(vectors: Vectors, why: str, trials: tuple[Trial, ...] = ()) -> IndexChoice:
    log.warning("%s; building the exact index", why)
    return IndexChoice(ExactIndex(vectors), {}, f"exact, because {why}", trials)


def _scann_plan(vectors: Vectors, config: IndexConfig) -> "_Plan[ScannSettings]":
    # Imported here, because the other backends work without ScaNN.
    from components.index_builder.scann_index import ScannIndex, ScannSettings, index_bytes

    num_candidates, k = len(vectors), min(config.k, len(vectors))
    float_bytes = index_bytes(num_candidates, vectors.shape[1], int8=False)
    limit_mb = config.int8_above_mb
    int8 = limit_mb is not None and float_bytes > limit_mb * _BYTES_PER_MB
    reorders = (
        [min(config.reorder, num_candidates)]
        if config.reorder
        else sorted({min(times * k, num_candidates) for times in _REORDERS})
    )

    def build(leaves: int) -> "ScannIndex":
        settings = ScannSettings.choose(
            num_candidates, k, leaves, config.leaves_to_search, config.reorder, int8
        )
        return ScannIndex(vectors, k, settings)

    def ladders(base: "ScannSettings") -> "Iterator[Iterable[ScannSettings]]":
        for reorder in reorders:
            parts = [config.leaves_to_search] if config.leaves_to_search else None
            yield (
                replace(base, leaves_to_search=part, reorder=reorder)
                for part in parts or growing_parts(base.leaves)
            )

    return _Plan(
        "scann",
        bool(config.leaves_to_search and config.reorder),
        _leaf_counts(config.leaves, num_candidates, _SCANN_LEAVES),
        build,
        ladders,
    )


def _partitioned_plan(vectors: Vectors, config: IndexConfig) -> _Plan[PartitionedSettings]:
    def build(leaves: int) -> PartitionedIndex:
        settings = PartitionedSettings.choose(len(vectors), leaves, config.leaves_to_search)
        return PartitionedIndex(vectors, settings)

    def ladders(base: PartitionedSettings) -> Iterator[Iterable[PartitionedSettings]]:
        most = PartitionedSettings.choose(len(vectors), base.leaves, base.leaves)
        yield (
            replace(base, blocks_to_search=part) for part in growing_parts(most.blocks_to_search)
        )

    return _Plan(
        "partitioned",
        config.leaves_to_search is not None,
        _leaf_counts(config.leaves, len(vectors), _PARTITIONED_LEAVES),
        build,
        ladders,
    )


def _leaf_counts(configured: int | None, num_candidates: int, roots: tuple[int, ...]) -> list[int]:
    if configured:
        return [min(configured, num_candidates)]
    tried = roots if num_candidates <= _FEW_CANDIDATES else roots[-1:]
    root = math.sqrt(num_candidates)
    return sorted({min(num_candidates, round(times * root)) for times in tried})
