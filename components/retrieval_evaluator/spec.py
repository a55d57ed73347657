"""The channels and the parameter of RetrievalEvaluator."""

from tfx.types import component_spec, standard_artifacts

from components.retrieval_evaluator.config import EvaluationConfig
from models.features.spec import FeatureSpec
from models.settings import Settings

EXAMPLES_KEY = "examples"
MODEL_KEY = "model"
LAST_BLESSED_KEY = "last_blessed_model"
LAST_BLESSING_KEY = "last_blessing"
EVALUATION_KEY = "evaluation"
BLESSING_KEY = "blessing"
CONFIG_KEY = "evaluator_config"


class EvaluatorConfig(Settings):
    """What crosses the TFX boundary, as one JSON string."""

    spec: FeatureSpec
    evaluation: EvaluationConfig
    code_hash: str


class RetrievalEvaluatorSpec(component_spec.ComponentSpec):
    """What RetrievalEvaluator takes and gives."""

    PARAMETERS = {CONFIG_KEY: component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        LAST_BLESSED_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Model, optional=True
        ),
        LAST_BLESSING_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ModelBlessing, optional=True
        ),
    }
    OUTPUTS = {
        EVALUATION_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
