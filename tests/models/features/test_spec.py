from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.features.spec import RESERVED_KEYS, ColumnsConfig, FeatureConfig, event_weight_key
from tests.builders import feature_spec

X: dict[str, Any] = {"kind": "numeric"}


@pytest.mark.parametrize("name", sorted(RESERVED_KEYS))
def test_names_that_the_pipeline_uses_are_refused_everywhere(name: str):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"query": {name: X}}, rf"queries\.features\.{name}"),
        ({"candidate": {name: X}}, rf"candidates\.features\.{name}"),
        ({"query_id": name}, r"events\.query_id"),
        ({"candidate_id": name}, r"events\.candidate_id"),
    ]
    for arguments, setting in cases:
        with pytest.raises(ValidationError, match=f"{setting} must not be"):
            feature_spec(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"query_id": "x", "candidate_id": "x"},
        {"query": {"x": X}, "candidate": {"x": X}},
        {"query_id": "x", "candidate": {"x": X}},
        {"candidate_id": "x", "query": {"x": X}},
    ],
)
def test_a_name_is_given_once(arguments: dict[str, Any]):
    with pytest.raises(ValidationError, match="are both 'x'"):
        feature_spec(**arguments)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "numeric", "separator": "|"},
        {"kind": "text", "separator": "|"},
        {"kind": "categorical", "list_format": "json"},
        {"kind": "categorical", "number_format": "1234,5"},
        {"kind": "numeric", "number_format": "1,234,5"},
        {"kind": "numeric", "number_format": "12,50"},
        {"kind": "categorical", "buckets": 5},
        {"kind": "numeric", "max_vocabulary": 10},
        {"kind": "numeric", "min_count": 2},
        {"kind": "text", "min_count": 2, "learn": False},
    ],
)
def test_options_must_fit_the_kind(settings: dict[str, Any]):
    with pytest.raises(ValidationError):
        FeatureConfig(**settings)


def test_only_candidates_have_features_that_the_model_does_not_learn_from():
    unused = {"kind": "text", "learn": False}
    spec = feature_spec(candidate={"title": unused, "genre": {"kind": "categorical"}})
    assert list(spec.candidate_features) == ["genre"]
    assert list(spec.catalogue_features) == ["title", "genre"]
    with pytest.raises(ValidationError, match="for candidate features, but is set for name"):
        feature_spec(query={"name": unused})


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
