"""The channels and parameters of CatalogueExampleGen."""

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.timeline_example_gen.artifacts import IngestReport, RejectedRows

CONFIG_KEY = "config"
INPUT_FINGERPRINT_KEY = "input_fingerprint"
FITTED_REPORT_KEY = "fitted_report"
EXAMPLES_KEY = "examples"
REJECTED_KEY = "rejected"
REPORT_KEY = "report"


class CatalogueExampleGenSpec(ComponentSpec):
    """What CatalogueExampleGen takes and gives."""

    PARAMETERS = {
        CONFIG_KEY: ExecutionParameter(type=str),
        INPUT_FINGERPRINT_KEY: ExecutionParameter(type=str),
    }
    INPUTS = {FITTED_REPORT_KEY: ChannelParameter(type=IngestReport)}
    OUTPUTS = {
        EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        REJECTED_KEY: ChannelParameter(type=RejectedRows),
        REPORT_KEY: ChannelParameter(type=IngestReport),
    }
