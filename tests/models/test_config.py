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
            {"history_encoder": "self_attention", "dimension": 64, "attention_heads": 3},
            "must be divisible by `attention_heads` 3",
        ),
        (
            ModelConfig,
            {"share_candidate_ids": True, "candidate_id_embedding": False},
            "candidate_id_embedding",
        ),
        (TrainingConfig, {"early_stopping_patience": 3}, "needs validation timelines"),
    ],
)
def test_settings_that_exclude_each_other_are_an_error(
    section: type[Settings], settings: dict[str, Any], message: str
):
    with pytest.raises(ValidationError, match=message):
        section(**settings)
