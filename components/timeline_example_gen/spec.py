"""Channels and parameters of `TimelineExampleGen`."""

from typing import Any

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.timeline_example_gen.artifacts import IngestReport, RejectedRows

CONFIG_KEY = "config"
INPUT_FINGERPRINT_KEY = "input_fingerprint"
DATA_DIRECTORY_KEY = "data_directory"
SPAN_KEY = "span"
EXAMPLES_KEY = "examples"
REJECTED_KEY = "rejected"
REPORT_KEY = "report"
# Properties of Examples made of spans: the newest as people write it, and the versions of all.
LAST_SPAN_PROPERTY = "last_span"
SPANS_PROPERTY = "spans"


class TimelineExampleGenSpec(ComponentSpec):
    """What `TimelineExampleGen` takes and gives."""

    PARAMETERS = {
        CONFIG_KEY: ExecutionParameter(type=str),
        INPUT_FINGERPRINT_KEY: ExecutionParameter(type=str),
        DATA_DIRECTORY_KEY: ExecutionParameter(type=str, optional=True),
        SPAN_KEY: ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {
        EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        REJECTED_KEY: ChannelParameter(type=RejectedRows),
        REPORT_KEY: ChannelParameter(type=IngestReport),
    }
