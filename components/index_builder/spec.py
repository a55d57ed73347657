"""The channels and the parameter of IndexBuilder."""

from tfx.types import component_spec, standard_artifacts
from tfx.types.artifact import Artifact

from components.candidate_embedder.spec import CandidateEmbeddings
from components.index_builder.config import IndexConfig
from models.features.spec import FeatureSpec
from models.settings import Settings

EXAMPLES_KEY = "examples"
EMBEDDINGS_KEY = "embeddings"
MODEL_KEY = "model"
MODEL_BLESSING_KEY = "model_blessing"
RETRIEVAL_MODEL_KEY = "retrieval_model"
REPORT_KEY = "report"
CONFIG_KEY = "index_builder_config"
REPORT_FILE = "index_report.json"


class IndexReportArtifact(Artifact):
    """A folder with `index_report.json`, and `trade_off.svg` where the index was tuned."""

    TYPE_NAME = "components.IndexReport"


class IndexBuilderConfig(Settings):
    """What crosses the TFX boundary, as one JSON string."""

    spec: FeatureSpec
    index: IndexConfig
    query_split: str
    model_name: str
    code_hash: str


class IndexBuilderSpec(component_spec.ComponentSpec):
    """What IndexBuilder takes and gives."""

    PARAMETERS = {CONFIG_KEY: component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        EMBEDDINGS_KEY: component_spec.ChannelParameter(type=CandidateEmbeddings),
        MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        MODEL_BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS = {
        RETRIEVAL_MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        REPORT_KEY: component_spec.ChannelParameter(type=IndexReportArtifact),
    }
