"""The exported towers embed raw inputs as the trained ones embed transformed Examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.config import ModelConfig
from models.features.spec import FeatureSpec
from models.input.raw_inputs import candidate_inputs, default_value, query_inputs
from models.input.transformed_features import dense_features, type_indices
from models.towers.saved_towers import SavedTowers
from models.training.two_tower_model import TwoTowerModel
from tests.models.conftest import CATALOGUE, TIMELINES, export_model, random_model, raw_queries

# Transform and the export take ten seconds each to trace.
pytestmark = pytest.mark.slow

DIMENSION, MAX_HISTORY, NUM_ITEMS = 6, 3, 5
NAN = math.nan
ITEMS = ["a b", "ü→漢", "a", "c", "d"]


@pytest.fixture(scope="module")
def model(transformed: Any) -> TwoTowerModel:
    config = ModelConfig(dimension=DIMENSION, max_history=MAX_HISTORY, query_id_embedding=True)
    return random_model(transformed, config)


@pytest.fixture(scope="module")
def towers(
    model: TwoTowerModel,
    transformed: Any,
    raw_spec: FeatureSpec,
    tmp_path_factory: pytest.TempPathFactory,
) -> SavedTowers:
    directory = str(tmp_path_factory.mktemp("export") / "Format-Serving")
    export_model(model, transformed.output, directory, ranked=True)
    return SavedTowers(directory, raw_spec)


def query(
    model: TwoTowerModel, transformed: Any, spec: FeatureSpec, row: dict[str, list[Any]]
) -> np.ndarray:
    """Embeds one transformed timeline with the towers in memory."""
    sparse = {
        name: tf.ragged.constant([row[name]], dtype, ragged_rank=1).to_sparse()
        for name, dtype in (("age", tf.float32), ("visits", tf.int64), ("country", tf.int64))
    }
    newest = [index for index in row["device"][-1:] if index >= 0]
    sparse["device"] = tf.ragged.constant([newest], tf.int64, ragged_rank=1).to_sparse()
    tower = model.query_tower
    events = tf.constant([row["item"]], tf.int32, [1, len(row["item"])])
    types = type_indices(tf.constant([row["event_type"]], tf.string, events.shape), spec)
    encoded = tower.encode(events, MAX_HISTORY, types)
    ids = tf.constant([row["user"][0]], tf.int32)
    return tower(ids, dense_features(sparse, spec.request_features), encoded).numpy()[0]


# `TIMELINES` of conftest.py as a client sends them.
QUERIES: list[dict[str, Any]] = [
    {
        "history": row["item"],
        "history_types": row["event_type"],
        "device": (row["device"] or [""])[-1],
        **{name: row[name][0] for name in ("user", "age", "visits", "country") if name in row},
    }
    for row in TIMELINES
]


def test_raw_queries_are_embedded_as_transformed_timelines(
    towers: SavedTowers, model: TwoTowerModel, transformed: Any, raw_spec: FeatureSpec
):
    # All at once: longer histories of others, beyond `max_history` too, must not matter.
    together = towers.embed_queries(raw_queries(QUERIES))
    for embedding, row in zip(together, transformed.timelines, strict=True):
        expected = query(model, transformed, raw_spec, row)
        np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)
    for embedding, sent in zip(together, QUERIES, strict=True):
        alone = towers.embed_queries(raw_queries([sent]))[0]
        np.testing.assert_allclose(embedding, alone, rtol=1e-4, atol=1e-5)


def test_raw_candidates_are_embedded_as_the_catalogue_in_memory(
    towers: SavedTowers, model: TwoTowerModel, write_examples: Callable[..., str], tmp_path: Path
):
    ids, vectors = towers.embed_catalogue([write_examples(tmp_path, CATALOGUE)])
    assert [name.decode() for name in ids] == ITEMS
    # The vocabulary's order is that of `ITEMS`: by falling count.
    expected = model.candidates(tf.range(NUM_ITEMS))
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_a_ranking_stage_reads_the_features_that_training_reads(
    towers: SavedTowers, model: TwoTowerModel, transformed: Any
):
    found = towers.transform_queries(raw_queries(QUERIES))
    for name in ("user", "age", "visits", "country"):
        missing = NAN if name == "age" else -1
        trained = [[*row[name], missing][:1] for row in transformed.timelines]
        np.testing.assert_allclose(found[name], trained, rtol=1e-5)
    raw = {
        "item": tf.constant(ITEMS),
        **{
            name: tf.constant([[*row.get(name, []), missing][0] for row in CATALOGUE])
            for name, missing in (("title", ""), ("year", NAN), ("section", ""))
        },
        "cover": tf.constant([row.get("cover") or [NAN] * 3 for row in CATALOGUE]),
        "genres": tf.ragged.constant([row.get("genres", []) for row in CATALOGUE]).to_tensor(""),
    }
    catalogue = towers.transform_candidates(raw)
    assert catalogue["item"][:, 0].numpy().tolist() == [*range(NUM_ITEMS)]
    for name, values in model.candidate_features.items():
        np.testing.assert_allclose(catalogue[name], values, rtol=1e-5)


def test_an_unknown_user_is_answered_from_history_and_features(towers: SavedTowers):
    stranger = {**QUERIES[2], "user": "never seen"}
    anonymous = {**QUERIES[2], "user": ""}
    known, unknown, missing = towers.embed_queries(raw_queries([QUERIES[2], stranger, anonymous]))
    np.testing.assert_array_equal(unknown, missing)
    assert np.any(known != unknown)


def test_an_empty_query_is_the_zero_vector_with_a_one_for_the_bias(towers: SavedTowers):
    nothing = towers.embed_queries(raw_queries([{}]))[0]
    np.testing.assert_allclose(nothing, [0.0] * DIMENSION + [1.0], atol=1e-6)


@pytest.mark.parametrize("number", [NAN, math.inf, -math.inf, 3.4e38])
def test_non_finite_and_too_large_numbers_count_as_missing(towers: SavedTowers, number: float):
    embedded = towers.embed_queries(
        raw_queries([{"user": "u2", "age": number, "visits": number}, {"user": "u2"}])
    )
    assert np.all(np.isfinite(embedded))
    np.testing.assert_array_equal(embedded[0], embedded[1])


def test_an_unknown_candidate_is_embedded_by_its_features(towers: SavedTowers):
    inputs = {
        "item": tf.constant(["new", "newer", "bare"]),
        "title": tf.constant(["The thing", "the THING", ""]),
        "genres": tf.constant([["z"], ["z"], [""]]),
        "year": tf.constant([1990.0, 1990.0, NAN]),
        "section": tf.constant(["film>war", "film > unknown", ""]),
        # Only the direction of a vector counts; a part of one is no vector.
        "cover": tf.constant([[1.0, 0.0, 1.0], [2.0, 0.0, 2.0], [1.0, NAN, NAN]]),
    }
    new, newer, bare = towers.module.signatures["embed_candidate"](**inputs)["embedding"].numpy()
    np.testing.assert_array_equal(new, newer)
    assert np.any(new != 0)
    np.testing.assert_array_equal(bare, np.zeros(DIMENSION + 1))


def test_one_row_defaults_are_spread_over_the_batch(towers: SavedTowers, raw_spec: FeatureSpec):
    defaults = {name: default_value(spec) for name, spec in query_inputs(raw_spec).items()}
    users = tf.constant(["u 1", "u2"])
    spread = towers.embed_queries({**defaults, "user": users})
    np.testing.assert_array_equal(
        spread, towers.embed_queries(raw_queries([{"user": "u 1"}, {"user": "u2"}]))
    )
    empty = towers.embed_queries({**defaults, "user": users[:0]})
    assert empty.shape == (0, DIMENSION + 1)
    candidates = {name: default_value(spec) for name, spec in candidate_inputs(raw_spec).items()}
    embed = towers.module.signatures["embed_candidate"]
    embedded = embed(**{**candidates, "item": tf.constant(["a", "d"])})["embedding"]
    assert embedded.shape == (2, DIMENSION + 1)
