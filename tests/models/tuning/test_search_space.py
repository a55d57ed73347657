"""Validation of search spaces, and the configuration of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.config import ModelConfig, TrainingConfig, TuningConfig
from models.ranking.config import RankingConfig
from models.tuning.search_space import apply, chosen_values, encode
from pipeline.config.file import parse
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError

EVENTS = {"files": "events.csv", "query_id": "user", "candidate_id": "item", "timestamp": "t"}
BASE: dict[str, Any] = {"name": "clubs", "events": EVENTS}


def load(space: dict[str, Any], **sections: Any) -> PipelineConfig:
    tuning = {"enabled": True, "space": space, **sections.pop("tuning", {})}
    return parse({**BASE, "tuning": tuning, **sections, "root": Path("/")}, source="clubs.yaml")


def test_every_kind_of_setting_can_be_searched():
    loaded = load(
        {
            "model.dimension": [16, 32],
            "model.similarity": ["dot", "cosine"],
            "model.candidate_bias": [True, False],
            "model.query_hidden_layers": [[], [64], [64, 32]],
            "model.candidate_hidden_layers": [[], [8]],
            "training.learning_rate": {"min": 0.001, "max": 0.1, "scale": "log"},
            "training.num_negatives": {"min": 64, "max": 1024, "scale": "log"},
            "training.gradient_clip_norm": [None, 1.0],
            "training.history_dropout": [0.1, 0.5],
            "recipe": [{}, {"model.similarity": "dot", "model.kind": "svd"}],
        }
    )
    assert loaded.tuning_metric == "hit_rate@10"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.dimensions": [8, 16]}, "`tuning.space.model.dimensions` is not a searchable"),
        ({"index.k": [8, 16]}, "`tuning.space.index.k` is not a searchable setting"),
        ({"model.dimension": [8, "wide"]}, "`tuning.space.model.dimension`: .*got 'wide'"),
        ({"model.similarity": ["dot", "dots"]}, "`tuning.space.model.similarity`: .*got 'dots'"),
        ({"model.dimension": [8]}, "must list at least two values"),
        ({"recipe": [{}, {"model.size": 8}]}, "`tuning.space.model.size` is not a searchable"),
        # Valid alone, but not together.
        (
            {"recipe": [{}, {"model.kind": "svd", "model.similarity": "cosine"}]},
            "`tuning.space.recipe`: .*`kind: svd` needs the defaults",
        ),
        ({"recipe": ["svd", {}]}, "must list sets of settings"),
        ({"model.dimension": {"min": 8, "max": 8.5}}, "must have integer limits, got 8 to 8.5"),
        ({"model.dimension": {"min": 8, "max": 4}}, "`min` 8 must be below `max` 4"),
        ({"training.history_dropout": {"min": 0.5, "max": 1.0}}, "less than 1, got 1.0"),
        (
            {"training.history_dropout": {"min": 0.0, "max": 0.5, "scale": "log"}},
            "needs a `min` above 0",
        ),
        ({"model.similarity": {"min": 1, "max": 2}}, "is not a number; list its values"),
        ({"model.dimension": {"from": 1, "to": 4}}, "unknown key .*from"),
        ({"training.seed": [1, 2]}, "`tuning.space.training.seed` cannot be searched: no seed"),
        ({}, r"`tuning\.enabled` needs a `tuning\.space`"),
    ],
)
def test_an_invalid_space_is_an_error_of_the_configuration(space: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        load(space)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"tuning": {"metric": "recall@10"}}, "must be hit_rate@K, mrr@K or ndcg@K, got 'recall"),
        (
            {"evaluation": {"baseline_metric": "query_ndcg@10"}},
            r"during training; set `tuning\.metric`",
        ),
        (
            {"model": {"history_encoder": "none", "query_id_embedding": True}},
            r"needs a `model\.history_encoder` other than none",
        ),
    ],
)
def test_trials_that_cannot_be_measured_are_an_error(sections: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        load({"model.dimension": [8, 16]}, **sections)


RANKED: dict[str, Any] = {"ranking": {"enabled": True}, "index": {"k": 50}}


def test_settings_of_the_ranker_have_a_search_of_their_own():
    space = {
        "ranking.learning_rate": {"min": 0.001, "max": 0.1, "scale": "log"},
        "ranking.hidden_layers": [[], [64], [64, 32]],
        "ranking.num_candidates": [50, 100],
    }
    searched = load(space, **RANKED, model={"history_encoder": "none", "query_id_embedding": True})
    changed = apply({"ranking.hidden_layers": [64]}, searched)
    assert changed == {"ranking": RankingConfig(enabled=True, hidden_layers=(64,))}


@pytest.mark.parametrize(
    ("space", "sections", "message"),
    [
        ({"ranking.epochs": [2, 4]}, {}, r"set `ranking\.enabled: true`"),
        (
            {"ranking.epochs": [2, 4], "model.dimension": [8, 16]},
            RANKED,
            r"either the retriever or the ranker, but has model\.dimension, ranking\.epochs",
        ),
        ({"ranking.num_candidates": [40, 80]}, RANKED, r"at least `index\.k` \(50\).* is 40"),
        ({"ranking.max_queries": [1000, 2000]}, RANKED, "measured on the same events"),
    ],
)
def test_a_search_of_the_ranker_that_is_not_possible_is_an_error(
    space: dict[str, Any], sections: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        load(space, **sections)


def test_values_keep_their_types_through_kerastuner():
    tuning = TuningConfig.model_validate(
        {
            "space": {
                "model.dimension": [8, 16],
                "model.query_hidden_layers": [[], [4]],
                "model.candidate_bias": [True, False],
                "training.gradient_clip_norm": [None, 1.0],
                "training.history_dropout": [0.1, 0.5],
            }
        }
    )
    chosen = {name: encode(choices)[1] for name, choices in tuning.space.items()}  # type: ignore[arg-type]  # of any kind
    assert chosen["training.history_dropout"] == 0.5
    values = chosen_values({**chosen, "tuner/epochs": 3}, tuning)
    configured = load(
        {}, tuning={"enabled": False}, model={"max_history": 7}, training={"epochs": 9}
    )
    assert apply(values, configured) == {
        "model": ModelConfig(
            max_history=7, dimension=16, query_hidden_layers=(4,), candidate_bias=False
        ),
        "training": TrainingConfig(epochs=9, gradient_clip_norm=1.0, history_dropout=0.5),
    }


def test_a_recipe_stands_for_its_settings():
    recipes = [{}, {"model.dimension": 16, "model.query_hidden_layers": [4]}]
    tuning = TuningConfig.model_validate({"space": {"recipe": recipes}})
    chosen = chosen_values({"recipe": encode(recipes)[1]}, tuning)
    assert chosen == recipes[1]
    configured = load({}, tuning={"enabled": False})
    assert apply(chosen, configured)["model"].dimension == 16
    assert chosen_values({"recipe": encode(recipes)[0]}, tuning) == {}


def test_values_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="history_encoder"):
        apply({"model.history_encoder": "none"}, load({}, tuning={"enabled": False}))
