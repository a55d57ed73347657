from __future__ import annotations

import math

import pytest

from components.index_builder.config import IndexConfig
from components.index_builder.gate import check_index, to_json

CONFIG = IndexConfig(recall_target=0.9, max_hit_rate_loss=0.02)


@pytest.mark.parametrize(
    ("recall", "loss", "passed"),
    [
        (0.9, 0.02, [True, True]),
        (0.95, -0.1, [True, True]),
        (0.8999, 0.0, [False, True]),
        (1.0, 0.0201, [True, False]),
        (math.nan, math.nan, [False, False]),
    ],
)
def test_thresholds_are_inclusive_and_nan_fails(recall: float, loss: float, passed: list[bool]):
    checks = check_index(recall, loss, CONFIG)
    assert [check.passed for check in checks] == passed
    assert to_json(checks)["passed"] is all(passed)
