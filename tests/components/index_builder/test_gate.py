from __future__ import annotations

import json
import math
from typing import Any

import pytest

from components.gates import without_nan
from components.index_builder.config import IndexConfig
from components.index_builder.gate import check_index, refusal

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
    assert bool(refusal(checks, CONFIG, "index")) is not all(passed)
    # Valid JSON, which has no NaN.
    json.dumps(without_nan([check.to_json() for check in checks]), allow_nan=False)


def test_the_loss_of_a_ranking_stage_is_that_of_the_ranked_list():
    recall, loss = map(str, check_index(0.95, 0.0, CONFIG, num_ranked=200))
    assert recall.startswith("recall@200 is 0.9500")
    assert loss.startswith("the loss of hit_rate@100 of the ranked list is 0.0000")


@pytest.mark.parametrize(
    ("settings", "recall", "loss", "said", "advised"),
    [
        (
            {"backend": "scann", "leaves": 9, "leaves_to_search": 2},
            0.5,
            0.0,
            "recall@100 is 0.5000, but must be at least 0.9500",
            "raise index.leaves_to_search, or remove it",
        ),
        ({}, 0.5, 0.0, "recall@100 is 0.5000", "tune the index with more queries"),
        (
            {},
            1.0,
            math.nan,
            "the loss of hit_rate@100 must be at most 0.0100, but has no value",
            "hold out events of candidates in the catalogue",
        ),
    ],
)
def test_a_refusal_advises_only_what_applies(
    settings: dict[str, Any], recall: float, loss: float, said: str, advised: str
):
    config = IndexConfig(**settings)
    message = refusal(check_index(recall, loss, config), config, "scann index")
    assert said in message
    assert f"To change this: {advised}" in message
    assert "nan" not in message
    assert ("leaves_to_search" in message) is ("leaves_to_search" in settings)
