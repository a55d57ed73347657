"""The channels and the parameter of CandidateEmbedder."""

from tfx.types import component_spec, standard_artifacts
from tfx.types.artifact import Artifact

from models.features.spec import FeatureSpec
from models.settings import Settings

EXAMPLES_KEY = "examples"
MODEL_KEY = "model"
MODEL_BLESSING_KEY = "model_blessing"
EMBEDDINGS_KEY = "embeddings"
CONFIG_KEY = "candidate_embedder_config"


class CandidateEmbeddings(Artifact):
    """A folder with `embeddings-*.parquet` (`components.candidate_embedder.embedding_files`)."""

    TYPE_NAME = "components.CandidateEmbeddings"


class CandidateEmbedderConfig(Settings):
    """What crosses the TFX boundary, as one JSON string."""

    spec: FeatureSpec
    code_hash: str


class CandidateEmbedderSpec(component_spec.ComponentSpec):
    """What CandidateEmbedder takes and gives."""

    PARAMETERS = {CONFIG_KEY: component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        MODEL_BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS = {EMBEDDINGS_KEY: component_spec.ChannelParameter(type=CandidateEmbeddings)}
