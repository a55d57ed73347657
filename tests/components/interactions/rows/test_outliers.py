from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.interactions.rows.outliers import NumberSketch

PRICES = [float(number) for number in range(3, 63)]


def sketch_of(*blocks: list[Any]) -> NumberSketch:
    sketch = NumberSketch()
    for block in blocks:
        sketch.add(pa.chunked_array([pa.array(block, pa.float32())]))
    return sketch


def warnings(numbers: list[float]) -> list[str]:
    return list(sketch_of(numbers).warnings("candidates.features.price"))


@pytest.mark.parametrize("sentinel", [-1.0, -999.0, 999.0, 2.0**31, -(2.0**63)])
def test_a_repeated_sentinel_is_named_with_the_range_of_the_others(sentinel: float):
    (text,) = warnings([*PRICES, sentinel, sentinel])
    assert f"2 of 62 values are {sentinel:.9g}, and all others are between 3 and 62" in text


@pytest.mark.parametrize("number", [-1e15, 3e18])
def test_a_value_a_thousand_times_as_far_as_the_quartiles_is_shown(number: float):
    (text,) = warnings([*PRICES, number])
    assert "1 of 61 values are far from the median" in text
    assert f"{np.float32(number):.9g}" in text


def test_far_values_are_found_among_equal_ones():
    (text,) = warnings([0.0] * 80 + [1.0] * 20 + [5e4])
    assert "1 of 101 values" in text


@pytest.mark.parametrize(
    "numbers",
    [
        PRICES,
        [*PRICES, -999.0],  # once
        [-1.0, 0.0, 1.0] * 20,  # codes
        [float(number) for number in range(-60, 0)] + [-1.0],
        [float(number) for number in range(9980, 10_020)] + [9999.0],
        [*map(float, range(100)), 99.0, 99.0],
        [1.7e9 + day * 86_400 for day in range(60)],
        [np.exp(number / 10) for number in range(-60, 60)],  # 0.002 to 365
        [7.0] * 60,
        [-999.0] * 5 + [1.0, 2.0, 3.0],  # too few
        [],
    ],
)
def test_plain_columns_give_no_warning(numbers: list[float]):
    assert warnings(numbers) == []


NUMBERS = st.lists(st.sampled_from([-999.0, -1.0, 0.0, 1.0, 1.004, 5.0, 1e9]) | st.none())


@given(st.lists(NUMBERS, max_size=5))
def test_blocks_and_files_give_the_sketch_of_the_whole_column(parts: list[list[float | None]]):
    merged = NumberSketch()
    for part in parts:
        merged.merge(sketch_of(part))
    for found in (merged, sketch_of(*parts)):
        assert vars(found) == vars(sketch_of([number for part in parts for number in part]))
