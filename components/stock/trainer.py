"""TFX's Trainer with a number of epochs that is only known at run time."""

from typing import Any

from tfx.components.trainer import executor
from tfx.types.standard_component_specs import CUSTOM_CONFIG_KEY
from tfx.utils import json_utils

from components.artifacts import Artifacts
from models.training.trainer import TRAINER_KEY

# A parameter that TFX's Trainer does not declare.
EPOCHS_KEY = "epochs"


class Executor(executor.GenericExecutor):
    """Run Trainer."""

    def Do(  # noqa: N802
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Train for the number of epochs in the parameter `epochs`, which `run_fn` validates."""
        given = dict(exec_properties)
        custom_config = json_utils.loads(given[CUSTOM_CONFIG_KEY])
        custom_config[TRAINER_KEY]["training"]["epochs"] = given.pop(EPOCHS_KEY)
        given[CUSTOM_CONFIG_KEY] = json_utils.dumps(custom_config)
        super().Do(input_dict, output_dict, given)
