import json
from pathlib import Path
from typing import Any

import pytest
from tfx.components.trainer import executor

from components.stock.trainer import Executor
from models.config import ModelConfig, TrainingConfig
from models.training.trainer import TRAINER_KEY, TrainerConfig
from tests.builders import executor_context, feature_spec

CONFIG = TrainerConfig(
    spec=feature_spec(),
    model=ModelConfig(),
    training=TrainingConfig(batch_size=32),
    checkpoint_dir="checkpoints",
    code_hash="",
)


def test_the_parameter_of_a_run_sets_the_epochs_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(executor.GenericExecutor, "Do", lambda self, *args: given.append(args[2]))

    def with_epochs(epochs: int) -> TrainerConfig:
        custom_config = json.dumps({TRAINER_KEY: CONFIG.model_dump(mode="json")})
        parameters = {"custom_config": custom_config, "epochs": epochs, "run_fn": "f"}
        Executor(executor_context(tmp_path)).Do({}, {}, parameters)
        assert given[-1].keys() == {"custom_config", "run_fn"}
        fields = json.loads(given[-1]["custom_config"])[TRAINER_KEY]
        return TrainerConfig.model_validate(fields)

    expected = CONFIG.training.model_copy(update={"epochs": 3})
    assert with_epochs(3) == CONFIG.model_copy(update={"training": expected})
    with pytest.raises(ValueError, match=r"training\.epochs"):
        with_epochs(0)
