"""The channels and the parameter of ServingValidator."""

from tfx.types import component_spec, standard_artifacts

from components.serving_validator.config import ServingConfig
from models.features.spec import FeatureSpec
from models.settings import Settings

EXAMPLES_KEY = "examples"
MODEL_KEY = "model"
BLESSING_KEY = "blessing"
CONFIG_KEY = "serving_validator_config"


class ServingValidatorConfig(Settings):
    """What crosses the TFX boundary, as one JSON string."""

    spec: FeatureSpec
    serving: ServingConfig
    query_split: str
    code_hash: str


class ServingValidatorSpec(component_spec.ComponentSpec):
    """What ServingValidator takes and gives."""

    PARAMETERS = {CONFIG_KEY: component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS = {BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing)}
