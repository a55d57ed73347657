import pytest
from pydantic import ValidationError

from models.config import ModelConfig, TrainingConfig


def test_a_query_tower_must_see_something():
    with pytest.raises(ValidationError, match="query tower needs an input"):
        ModelConfig(history_encoder="none")
    assert ModelConfig(history_encoder="none", query_id_embedding=True)


def test_attention_heads_share_the_dimension():
    with pytest.raises(ValidationError, match="must be divisible by `attention_heads` 3"):
        ModelConfig(history_encoder="self_attention", dimension=64, attention_heads=3)


def test_a_shared_table_must_exist():
    with pytest.raises(ValidationError, match="candidate_id_embedding"):
        ModelConfig(share_candidate_ids=True, candidate_id_embedding=False)


def test_early_stopping_needs_something_to_watch():
    with pytest.raises(ValidationError, match="needs validation timelines"):
        TrainingConfig(early_stopping_patience=3)
    assert TrainingConfig(early_stopping_patience=3, validation_fraction=0.05)
