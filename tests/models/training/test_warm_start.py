"""Warm start from an earlier model after catalogue, users and feature values have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.errors import WarmStartError
from models.features.vocabularies import FeatureSizes
from models.towers.export import named_weights
from models.training.two_tower_model import TwoTowerModel
from models.training.warm_start import SavedWeights, restore, vocabulary_of
from tests.builders import feature_spec

SPEC = feature_spec(
    query={"country": {"kind": "categorical"}, "age": {"kind": "numeric", "buckets": 3}},
    candidate={"genres": {"kind": "categorical"}, "year": {"kind": "numeric"}},
)
Vocabularies = dict[str, Sequence[bytes]]
OLD: Vocabularies = {
    "item": [b"a b", "ü→漢".encode(), b"gone", b"d"],
    "user": [b"u1", b"u2"],
    "country": [b"CH", b"JP"],
    "genres": [b"x y", b"z"],
}
# Vocabularies are ordered by frequency, so new data changes the order.
NEW: Vocabularies = {
    "item": [b"new", "ü→漢".encode(), b"d", b"a b", b"newer"],
    "user": [b"u2", b"u3", b"u1"],
    "country": [b"FR", b"JP", b"CH"],
    "genres": [b"z"],
}


def make_model(vocabularies: Vocabularies, seed: int, **settings: Any) -> TwoTowerModel:
    sizes = {name: len(values) + 1 for name, values in vocabularies.items()}
    items = sizes["item"] - 1
    tf_keras.utils.set_random_seed(seed)
    model = TwoTowerModel(
        SPEC,
        FeatureSizes(
            queries=sizes["user"],
            candidates=sizes["item"],
            features={"country": sizes["country"], "genres": sizes["genres"], "age": 3},
        ),
        ModelConfig(
            **{"dimension": 4, "query_id_embedding": True, "query_hidden_layers": (3,), **settings}
        ),
        TrainingConfig(),
        {"genres": np.zeros([items, 1], np.int32), "year": np.zeros([items, 1], np.float32)},
        np.ones(items, np.int64),
        1,
    )
    one = tf.constant([[0]])
    model.compute_loss({"user": one, "item": one, "country": one, "age": one})
    return model


def weights_of(model: TwoTowerModel) -> dict[str, np.ndarray]:
    weights = named_weights([model.candidate_tower, model.query_tower])
    return {name: variable.numpy() for name, variable in weights.items()}


def save(model: TwoTowerModel, vocabularies: Vocabularies) -> SavedWeights:
    return SavedWeights(weights_of(model), vocabularies, model.config, "there")


def test_names_are_part_of_the_format_of_an_exported_model():
    assert sorted(weights_of(make_model(OLD, 1))) == [
        "candidate_tower:biases:embeddings",
        "candidate_tower:features:directions:year:bias",
        "candidate_tower:features:directions:year:kernel",
        "candidate_tower:features:tables:genres:embeddings",
        "candidate_tower:ids:embeddings",
        "query_tower:event_features:directions:year:bias",
        "query_tower:event_features:directions:year:kernel",
        "query_tower:event_features:tables:genres:embeddings",
        "query_tower:events:embeddings",
        "query_tower:features:tables:age:embeddings",
        "query_tower:features:tables:country:embeddings",
        "query_tower:history:project:kernel",
        "query_tower:ids:embeddings",
        "query_tower:layers:0:bias",
        "query_tower:layers:0:kernel",
        "query_tower:layers:1:bias",
        "query_tower:layers:1:kernel",
    ]


def test_known_values_keep_their_rows_and_new_ones_are_random():
    old, new = make_model(OLD, 1), make_model(NEW, 2)
    before, saved = weights_of(new), save(old, OLD)
    report = restore(new, saved, NEW)
    for name, after in weights_of(new).items():
        vocabulary = vocabulary_of(name, SPEC)
        if vocabulary is None:
            np.testing.assert_array_equal(after, saved.values[name], name)
            continue
        for row, value in enumerate(NEW[vocabulary]):
            expected = before[name][row]
            if value in OLD[vocabulary]:
                expected = saved.values[name][list(OLD[vocabulary]).index(value)]
            np.testing.assert_array_equal(after[row], expected, f"{name} {value!r}")
        # Unknown values stay unknown.
        np.testing.assert_array_equal(after[-1], saved.values[name][-1], name)
    assert report == {
        "source": "there",
        "vocabularies": {
            "item": {"kept": 3, "new": 2, "gone": 1},
            "user": {"kept": 2, "new": 1, "gone": 0},
            "country": {"kept": 2, "new": 1, "gone": 0},
            "genres": {"kept": 1, "new": 0, "gone": 1},
        },
        "fresh": [],
        "dropped": [],
    }


def test_weights_that_only_one_model_has_are_listed():
    saved = save(make_model(OLD, 1, query_hidden_layers=()), OLD)
    gone = {**saved.values, "query_tower:features:tables:planet:embeddings": np.zeros([3, 4])}
    report = restore(make_model(NEW, 2), replace(saved, values=gone), NEW)
    assert report["fresh"] == [
        f"query_tower:layers:{layer}:{part}" for layer in (0, 1) for part in ("bias", "kernel")
    ]
    assert report["dropped"] == ["query_tower:features:tables:planet:embeddings"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dimension": 6}, r"candidate_tower:ids:embeddings was \[4\] and is \[6\]"),
        (
            {"query_hidden_layers": (7,)},
            r"query_tower:layers:0:kernel was \[4, 3\] and is \[4, 7\]",
        ),
        ({"similarity": "cosine"}, "`model.similarity` was dot and is cosine"),
    ],
)
def test_incompatible_weights_are_listed_and_change_nothing(settings: dict[str, Any], named: str):
    new = make_model(NEW, 2, **settings)
    before = weights_of(new)
    with pytest.raises(WarmStartError, match=named) as raised:
        restore(new, save(make_model(OLD, 1), OLD), NEW)
    assert "training.warm_start: false" in str(raised.value)
    for name, value in weights_of(new).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_model_without_weights_by_name_is_refused(tmp_path: Path):
    with pytest.raises(WarmStartError, match=r"train once with `training\.warm_start: false`"):
        SavedWeights.read(str(tmp_path), SPEC)
