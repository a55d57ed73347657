"""The number of segments of large inputs, from listings without files."""

from __future__ import annotations

import math

import pytest

from components.interactions.buckets import Sizing, make_plan
from components.interactions.config import DataConfig, IngestConfig, SplitConfig
from components.interactions.partition import steps
from components.interactions.sources.files import SourceFile
from tests.builders import feature_spec

GB = 1 << 30
CONFIG = IngestConfig(
    data=DataConfig(interactions="log/*.csv"),
    split=SplitConfig(method="random"),
    spec=feature_spec(),
)


def num_segments(num_bytes: int) -> int:
    """Return the largest number of segments that an ingestion writes in all steps."""
    number = max(1, num_bytes // GB)
    files = tuple(
        SourceFile("interactions", i, f"{i}.csv", f"{i}.csv", num_bytes // number)
        for i in range(number)
    )
    plan = make_plan(CONFIG, files, "spill", Sizing())
    num_blocks = sum(math.ceil(file.csv_bytes / plan.sizing.block_bytes) for file in files)
    of_group = plan.num_buckets["interactions"]
    assert of_group == num_bytes // plan.sizing.bucket_bytes
    total = 0
    for size in steps(of_group, plan.sizing.fan_out):
        total += num_blocks * math.ceil(of_group / size)
        of_group = size
    return total


def test_segments_grow_with_the_bytes_and_not_with_their_square():
    of = {size: num_segments(size * GB) for size in (1, 10, 100, 1024, 10 * 1024)}
    assert of[1] == 64 * 32  # one step, as 16 MB blocks of which each has all buckets of 32 MB
    for size, number in of.items():
        assert number <= size * 64 * 2 * Sizing.fan_out
    assert of[10 * 1024] <= 10 * of[1024]
    # In one step there would be 655,360 blocks with 327,680 segments.
    assert of[10 * 1024] == 655_360 * 3 * 69


@pytest.mark.parametrize("fan_out", [2, 3, 256])
@pytest.mark.parametrize("num_buckets", [1, 2, 255, 256, 257, 65_536, 65_537, 10**7])
def test_no_step_has_more_groups_than_the_fan_out(num_buckets: int, fan_out: int):
    sizes = steps(num_buckets, fan_out)
    assert sizes[-1] == 1
    before = num_buckets
    for size in sizes:
        assert math.ceil(before / size) <= fan_out
        before = size
