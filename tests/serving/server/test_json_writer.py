from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.server.json_writer import decimal_texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # Six digits where they read back the same, nine where not.
        (0.2, "0.2"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (9_000_000.0, "9e+06"),
        (0.00003, "3e-05"),
        (1 / 3, "0.333333343"),
        (16_777_216.0, "16777216.0"),
        (3.4e38, "3.4e+38"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_float32_texts(value: float, text: str) -> None:
    assert decimal_texts(np.float32([value])) == [text]


def test_float64_texts() -> None:
    assert decimal_texts(np.float64([0.1, 1 / 3])) == ["0.1", "0.33333333333333331"]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_float32_texts_read_back_the_same(values: list[float]) -> None:
    array = np.array(values, np.float32)
    read_back = np.array([float(text) for text in decimal_texts(array)]).astype(np.float32)
    np.testing.assert_array_equal(read_back, array)
