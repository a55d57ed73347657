"""How one ingestion is laid out: its files, its buckets, its temporary folder."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.interactions.config import IngestConfig
from components.interactions.source_columns import SOURCES, Source
from components.interactions.source_files import SourceFile


@dataclass(frozen=True)
class Sizing:
    """What bounds the memory of a worker.

    Attributes:
        block_bytes: How much of a file is in memory at once.
        bucket_bytes: How much CSV a bucket stands for; a bucket is in memory as a whole. A single
            query with more events than this makes its bucket as large.
        batch_events: How many events are encoded at once.
    """

    # With these, 1, 4 and 16 million ratings (20, 82 and 330 MB of CSV) in one process need 160,
    # 202 and 222 MB beyond the imports.
    block_bytes: int = 16 << 20
    bucket_bytes: int = 32 << 20
    batch_events: int = 100_000


@dataclass(frozen=True)
class IngestPlan:
    """What every worker knows.

    Attributes:
        config: The settings.
        files: The input, in order.
        num_buckets: By source; interactions and queries share theirs.
        spill_dir: Where temporary files go.
        sizing: What bounds memory.
    """

    config: IngestConfig
    files: tuple[SourceFile, ...]
    num_buckets: Mapping[Source, int]
    spill_dir: str
    sizing: Sizing

    def id_key(self, source: Source) -> str:
        """Returns the column whose hash chooses the bucket of a row."""
        spec = self.config.spec
        return spec.candidate_id if source == "candidates" else spec.query_id


def make_plan(
    config: IngestConfig, files: tuple[SourceFile, ...], spill_dir: str, sizing: Sizing
) -> IngestPlan:
    """Returns a plan with as many buckets as the size of the input asks for."""
    csv_bytes = dict.fromkeys(SOURCES, 0)
    for file in files:
        csv_bytes[file.source] += file.csv_bytes
    by_query = _ceil(csv_bytes["interactions"] + csv_bytes["queries"], sizing.bucket_bytes)
    # Distinct ids of events come on top of the catalogue; they are a fraction of the events.
    by_candidate = _ceil(
        csv_bytes["candidates"] + csv_bytes["interactions"] // 8, sizing.bucket_bytes
    )
    return IngestPlan(
        config,
        files,
        {"interactions": by_query, "queries": by_query, "candidates": by_candidate},
        spill_dir,
        sizing,
    )


def _ceil(amount: int, unit: int) -> int:
    return max(1, -(-amount // unit))
