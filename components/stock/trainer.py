"""TFX's Trainer with a number of epochs that is only known at run time."""

from typing import Any

from pydantic import ValidationError
from tfx.components.trainer import executor
from tfx.types.standard_component_specs import CUSTOM_CONFIG_KEY
from tfx.utils import json_utils

from components.artifacts import Artifacts
from models.config import TrainingConfig
from models.training.trainer import TRAINER_KEY, TrainerConfig

# A parameter that TFX's Trainer does not declare.
EPOCHS_KEY = "epochs"


class Executor(executor.GenericExecutor):
    """Run Trainer."""

    def Do(  # noqa: N802
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Fit for as many epochs as the parameter `epochs` says, if it is given."""
        given = dict(exec_properties)
        epochs = given.pop(EPOCHS_KEY, None)
        if epochs is not None:
            custom_config = json_utils.loads(given[CUSTOM_CONFIG_KEY])
            custom_config[TRAINER_KEY] = with_epochs(custom_config[TRAINER_KEY], epochs)
            given[CUSTOM_CONFIG_KEY] = json_utils.dumps(custom_config)
        super().Do(input_dict, output_dict, given)


def with_epochs(trainer_config: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Return the fields of a `TrainerConfig` with another number of epochs.

    Raises:
        ValueError: The number is not a positive integer.
    """
    config = TrainerConfig.model_validate(trainer_config)
    try:
        training = TrainingConfig.model_validate({**config.training.model_dump(), "epochs": epochs})
    except ValidationError as error:
        raise ValueError(
            f"the run's parameter `epochs` must be a whole number of at least 1, got {epochs!r}"
        ) from error
    return config.model_copy(update={"training": training}).model_dump(mode="json")
