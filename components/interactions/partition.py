"""Partition rows into buckets by the hashes of their IDs, in several steps if there are many.

In one step, each block of the input has a segment for each bucket, and both numbers grow with the
size of the input. A step therefore has at most `Sizing.fan_out` groups: the first one partitions
the blocks, and each later one partitions a group of the step before.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components.interactions.buckets import IngestPlan, Segment, read_segment, write_segments
from components.interactions.config import Source
from components.interactions.stable_hash import hash_strings

Key = tuple[Source, int]


def steps(num_buckets: int, fan_out: int) -> list[int]:
    """Return the number of buckets in a group after each step, of which the last is 1."""
    number = max(1, math.ceil(round(math.log(num_buckets, fan_out), 9)))
    width = math.ceil(round(num_buckets ** (1 / number), 9))
    return [width**step for step in reversed(range(number))]


def write_groups(
    plan: IngestPlan, source: Source, rows: pa.Table, id_key: str, step: int = 0
) -> Iterator[tuple[Key, Segment]]:
    """Write rows with a segment for each group of a step; yield the groups and segments."""
    num_buckets = plan.num_buckets[source]
    groups = np.zeros(len(rows), np.int64)
    if num_buckets > 1 and len(rows):
        ids = rows[id_key].combine_chunks().dictionary_encode()
        buckets = (hash_strings(ids.dictionary) % np.uint64(num_buckets)).astype(np.int64)
        sizes = steps(num_buckets, plan.sizing.fan_out)
        groups = (buckets // sizes[step])[np.asarray(ids.indices)]
    for group, segment in write_segments(rows, groups, plan.spill_dir):
        yield (source, group), segment


def to_buckets(
    segments: beam.PCollection, plan: IngestPlan, id_keys: Mapping[Source, str]
) -> beam.PCollection:
    """Take segments from the groups of the first step to those of the last, the buckets.

    Args:
        segments: Results of `write_groups` for the first step.
        plan: The plan with the numbers of buckets.
        id_keys: The ID column by source.
    """
    numbers = [len(steps(plan.num_buckets[each], plan.sizing.fan_out)) for each in id_keys]
    for step in range(1, max(numbers)):
        segments = (
            segments
            | f"ByGroup{step}" >> beam.GroupByKey()
            | f"Partition{step}" >> beam.FlatMap(_partition, plan, id_keys, step)
        )
    return segments


def _partition(
    keyed: tuple[Key, Iterable[Segment]], plan: IngestPlan, id_keys: Mapping[Source, str], step: int
) -> Iterator[tuple[Key, Segment]]:
    (source, group), segments = keyed
    if step >= len(steps(plan.num_buckets[source], plan.sizing.fan_out)):
        yield from (((source, group), segment) for segment in segments)
        return
    for part in _parts(sorted(segments), plan.sizing.block_bytes):
        rows = pa.concat_tables(map(read_segment, part))
        yield from write_groups(plan, source, rows, id_keys[source], step)


def _parts(segments: Iterable[Segment], max_bytes: int) -> Iterator[list[Segment]]:
    """Yield consecutive segments that have at most `max_bytes` together, or a single one."""
    part: list[Segment] = []
    num_bytes = 0
    for segment in segments:
        if part and num_bytes + segment.size_bytes > max_bytes:
            yield part
            part, num_bytes = [], 0
        part.append(segment)
        num_bytes += segment.size_bytes
    if part:
        yield part
