from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.features.spec import RESERVED_KEYS, EventWeights, FeatureConfig
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
        {"kind": "path"},
        {"kind": "text", "path_separator": ">"},
        {"kind": "vector"},
        {"kind": "numeric", "dimension": 3},
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


def test_targets_keep_their_weights_and_other_types_have_none():
    weights = EventWeights(types={"view": 1.0, "buy": 5.0}, ratings={"5": 2.0})
    assert weights.of_targets(()) == weights
    targets = weights.of_targets(["buy"])
    assert (targets.types, targets.other_types, targets.ratings) == ({"buy": 5}, 0, {"5": 2})
    assert EventWeights(types={"view": 1.0}).keys == ()
    assert EventWeights(types={"view": 1.0}).of_targets(["view"]).keys == ("event_type",)
