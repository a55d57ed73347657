"""The channels, parameters and files of DriftGate."""

from tfx.types import component_spec, standard_artifacts
from tfx.types.artifact import Artifact

from components.drift_gate.config import DriftConfig
from components.timeline_example_gen.config import IngestConfig
from models.settings import Settings

EXAMPLES_KEY = "examples"
PROFILE_KEY = "profile"
CONFIG_KEY = "drift_gate_config"
# In which span a profile was taken, and of which use.
SPAN_PROPERTY = "span"
USE_PROPERTY = "use"
REPORT_FILE = "drift_report.json"


class SpanProfile(Artifact):
    """What a span held: statistics of its sources, its candidates, and the report of the gate."""

    TYPE_NAME = "SpanProfile"


class DriftGateConfig(Settings):
    """What crosses the TFX boundary, as one JSON string.

    Attributes:
        use: Name of the configuration.
        ingest: With the spans chosen.
        drift: The thresholds.
        baseline: URI of the last good profile; empty where there is none.
        code_hash: For the cache.
    """

    use: str
    ingest: IngestConfig
    drift: DriftConfig
    baseline: str
    code_hash: str


class DriftGateSpec(component_spec.ComponentSpec):
    """What DriftGate takes and gives."""

    PARAMETERS = {CONFIG_KEY: component_spec.ExecutionParameter(type=str)}
    INPUTS = {EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = {PROFILE_KEY: component_spec.ChannelParameter(type=SpanProfile)}
