import pytest

from components.stock.trainer import with_epochs
from models.config import ModelConfig, TrainingConfig
from models.training.trainer import TrainerConfig
from tests.builders import feature_spec

CONFIG = TrainerConfig(
    spec=feature_spec(),
    model=ModelConfig(),
    training=TrainingConfig(batch_size=32),
    checkpoint_dir="checkpoints",
    code_hash="",
)


def test_sets_the_epochs_and_nothing_else() -> None:
    changed = TrainerConfig.model_validate(with_epochs(CONFIG.model_dump(mode="json"), 3))
    assert changed.training.epochs == 3
    assert changed.training.batch_size == 32
    training = changed.training.model_copy(update={"epochs": CONFIG.training.epochs})
    assert changed.model_copy(update={"training": training}) == CONFIG


def test_an_impossible_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameter `epochs` must be .* at least 1, got 0"):
        with_epochs(CONFIG.model_dump(mode="json"), 0)
