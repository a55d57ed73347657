from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.features.spec import (
    RESERVED_KEYS,
    ColumnsConfig,
    FeatureConfig,
    FeatureSpec,
    event_weight_key,
)
from tests.builders import feature_spec


def spec(
    query_id: str = "user",
    candidate_id: str = "item",
    query: tuple[str, ...] = (),
    candidate: tuple[str, ...] = (),
) -> FeatureSpec:
    return feature_spec(
        {name: {"kind": "numeric"} for name in query},
        {name: {"kind": "text"} for name in candidate},
        query_id=query_id,
        candidate_id=candidate_id,
    )


@pytest.mark.parametrize("name", sorted(RESERVED_KEYS))
def test_names_that_the_pipeline_uses_are_refused_everywhere(name: str):
    with pytest.raises(ValidationError, match=rf"queries\.features\.{name} must not be"):
        spec(query=(name,))
    with pytest.raises(ValidationError, match=rf"candidates\.features\.{name} must not be"):
        spec(candidate=(name,))
    with pytest.raises(ValidationError, match=r"events\.query_id must not be"):
        spec(query_id=name)
    with pytest.raises(ValidationError, match=r"events\.candidate_id must not be"):
        spec(candidate_id=name)


@pytest.mark.parametrize(
    "names",
    [
        {"query_id": "x", "candidate_id": "x"},
        {"query": ("x",), "candidate": ("x",)},
        {"query_id": "x", "candidate": ("x",)},
        {"candidate_id": "x", "query": ("x",)},
    ],
)
def test_a_name_is_given_once(names: dict[str, Any]):
    with pytest.raises(ValidationError, match="are both 'x'"):
        spec(**names)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "numeric", "separator": "|"},
        {"kind": "text", "separator": "|"},
        {"kind": "categorical", "buckets": 5},
        {"kind": "numeric", "max_vocabulary": 10},
        {"kind": "numeric", "min_count": 2},
    ],
)
def test_options_must_fit_the_kind(settings: dict[str, Any]):
    with pytest.raises(ValidationError):
        FeatureConfig(**settings)


IDS: dict[str, Any] = {"query_id": "user", "candidate_id": "item"}


def test_types_decide_before_ratings_and_nothing_without_weights():
    both = ColumnsConfig(**IDS, rating="stars", event_type="did")
    assert event_weight_key(both, {"buy": 2.0}) == "event_type"
    assert event_weight_key(ColumnsConfig(**IDS, rating="stars"), {"5": 1.0}) == "rating"
    assert event_weight_key(both, {}) is None
    assert event_weight_key(ColumnsConfig(**IDS), {}) is None


def test_weights_need_a_column_and_ratings_numbers():
    with pytest.raises(ValueError, match=r"needs `events\.event_type` or"):
        event_weight_key(ColumnsConfig(**IDS), {"buy": 2.0})
    with pytest.raises(ValueError, match="must be ratings"):
        event_weight_key(ColumnsConfig(**IDS, rating="stars"), {"buy": 2.0})
