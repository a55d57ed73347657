from typing import Any

import pytest
from pydantic import ValidationError

from models.config import ModelConfig, TrainingConfig
from models.settings import Settings


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        (ModelConfig, {"history_encoder": "none"}, "query tower needs an input"),
        (
            ModelConfig,
            {"history_encoder": "recency_attention", "dimension": 64, "attention_heads": 3},
            "must be divisible by `attention_heads` 3",
        ),
        (
            ModelConfig,
            {"share_candidate_ids": True, "candidate_id_embedding": False},
            "candidate_id_embedding",
        ),
        (TrainingConfig, {"history_dropout": 0}, "needs a `history_dropout` above 0"),
        (TrainingConfig, {"hard_negatives": 9}, "needs `objective: next_candidate`"),
        (TrainingConfig, {"dense_learning_rate": 0.1, "optimizer": "sgd"}, "`optimizer: adamw`"),
    ],
)
def test_settings_that_exclude_each_other_are_an_error(
    section: type[Settings], settings: dict[str, Any], message: str
):
    with pytest.raises(ValidationError, match=message):
        section(**settings)
