"""The channels, parameters and files of DriftGate."""

from tfx.types import component_spec, standard_artifacts
from tfx.types.artifact import Artifact

from components.drift_gate.config import DriftConfig
from components.interactions.config import IngestConfig
from models.settings import Settings

EXAMPLES_KEY = "examples"
PROFILE_KEY = "profile"
CONFIG_KEY = "drift_gate_config"
# As of TimelineExampleGen: where relative paths start, if only a run can tell.
DATA_DIRECTORY_KEY = "data_directory"
# The newest span of the run, and which use it is of.
SPAN_PROPERTY = "span"
USE_PROPERTY = "use"
REPORT_FILE = "drift_report.json"


class SpanProfile(Artifact):
    """What spans held: statistics of their sources, their candidates, and the gate's report."""

    TYPE_NAME = "components.SpanProfile"


class DriftGateConfig(Settings):
    """What crosses the TFX boundary, as one JSON string.

    Attributes:
        use: Name of the configuration.
        ingest: With the spans chosen; on a cluster the gate takes those that ingestion read.
        drift: The thresholds.
        baseline: URI of what the last run that was let pass left; empty where there is none.
        profiles: On a cluster the folder of what was let pass (`kept_profiles`), instead of a
            baseline; empty: ML Metadata has them.
        code_hash: For the cache.
    """

    use: str
    ingest: IngestConfig
    drift: DriftConfig
    baseline: str = ""
    profiles: str = ""
    code_hash: str


class DriftGateSpec(component_spec.ComponentSpec):
    """What DriftGate takes and gives."""

    PARAMETERS = {
        CONFIG_KEY: component_spec.ExecutionParameter(type=str),
        DATA_DIRECTORY_KEY: component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = {PROFILE_KEY: component_spec.ChannelParameter(type=SpanProfile)}
