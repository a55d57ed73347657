"""What may be tried of an approximate backend: numbers of leaves, and searches through them."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic

from components.index_builder.config import IndexConfig
from components.index_builder.partitioned_index import PartitionedIndex, PartitionedSettings
from components.index_builder.recall import Vectors
from components.index_builder.tuning import SettingsT, TunableIndex, growing_parts

if TYPE_CHECKING:
    from components.index_builder.scann_index import ScannIndex, ScannSettings

# Up to this many candidates an index is built in seconds, and several numbers of leaves are tried.
_FEW_CANDIDATES = 200_000
# Leaves, in square roots of the catalogue; a large one gets the last alone.
_SCANN_LEAVES = (1, 2)
_PARTITIONED_LEAVES = (2, 4)
# Rescored neighbours, in k.
_REORDERS = (2, 4, 8)
_BYTES_A_MB = 1_000_000


@dataclass(frozen=True)
class IndexPlan(Generic[SettingsT]):
    """What a configuration leaves open.

    Attributes:
        backend: Its name.
        is_configured: Whether nothing is left to tune.
        leaf_counts: Numbers of leaves that are worth a build.
        build: Builds the index with so many leaves, and usual settings of the search.
        ladders: Searches that may be tried with a built index (`components.index_builder.tuning`).
    """

    backend: str
    is_configured: bool
    leaf_counts: list[int]
    build: Callable[[int], TunableIndex[SettingsT]]
    ladders: Callable[[TunableIndex[SettingsT]], Iterable[Iterable[SettingsT]]]


def scann_plan(vectors: Vectors, config: IndexConfig) -> "IndexPlan[ScannSettings]":
    """ScaNN: leaves, leaves to search, neighbours that are rescored."""
    # Only here: other indexes must be built where ScaNN is not installed.
    from components.index_builder.scann_index import ScannIndex, ScannSettings, index_bytes

    num_candidates, k = len(vectors), min(config.k, len(vectors))
    float_bytes = index_bytes(num_candidates, vectors.shape[1], int8=False)
    limit_mb = config.int8_above_mb
    int8 = limit_mb is not None and float_bytes > limit_mb * _BYTES_A_MB
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

    def ladders(index: "TunableIndex[ScannSettings]") -> "Iterator[Iterable[ScannSettings]]":
        base = index.settings
        for reorder in reorders:
            parts = [config.leaves_to_search] if config.leaves_to_search else None
            yield (
                replace(base, leaves_to_search=part, reorder=reorder)
                for part in parts or growing_parts(base.leaves)
            )

    return IndexPlan(
        "scann",
        bool(config.leaves_to_search and config.reorder),
        _leaf_counts(config.leaves, num_candidates, _SCANN_LEAVES),
        build,
        ladders,
    )


def partitioned_plan(vectors: Vectors, config: IndexConfig) -> IndexPlan[PartitionedSettings]:
    """Leaves of blocks: leaves, blocks to search."""

    def build(leaves: int) -> PartitionedIndex:
        settings = PartitionedSettings.choose(len(vectors), leaves, config.leaves_to_search)
        return PartitionedIndex(vectors, settings)

    def ladders(
        index: TunableIndex[PartitionedSettings],
    ) -> Iterator[Iterable[PartitionedSettings]]:
        base = index.settings
        num_blocks = PartitionedSettings.choose(len(vectors), base.leaves, base.leaves)
        yield (
            replace(base, blocks_to_search=part)
            for part in growing_parts(num_blocks.blocks_to_search)
        )

    return IndexPlan(
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
