"""Lookup of the spans that earlier runs accepted, and those that the current run has chosen."""

import logging

from ml_metadata import errors

from components.artifacts import PROJECT_PROPERTY, SPAN_PROPERTY, SpanProfile
from components.drift_gate.accepted_spans import is_whole
from components.interactions.config import IngestConfig
from components.interactions.spans.pattern import show_span
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.runs.metadata import Artifact, has_metadata, newest_execution, open_store

log = logging.getLogger(__name__)

# The component that reads the input files.
INGESTION = "TimelineExampleGen"


def ingestion_of_run(config: PipelineConfig, run_id: str) -> IngestConfig | None:
    """Return the ingestion settings of a run with its chosen spans, or None before ingestion.

    If each component runs in its own process, later components must not choose spans again. A span
    that arrived after ingestion would be in the drift reference, but not in the training data.
    """
    if not has_metadata(config):
        return None
    execution = newest_execution(open_store(config), config.name, INGESTION, run_id)
    if execution is None:
        return None
    settings = execution.custom_properties["config"].string_value
    return IngestConfig.model_validate_json(settings)


def last_accepted_spans(config: PipelineConfig) -> str:
    """Return the URI of the newest profiles of accepted spans, or "" if there are none.

    The drift gate compares new spans with these profiles. A refused run writes no profiles, so its
    spans never become a reference.

    Raises:
        ConfigError: The folder of the profiles is missing, and `drift.action` is `stop`.
    """
    if not has_metadata(config):
        return ""
    try:
        artifacts = open_store(config).get_artifacts_by_type(SpanProfile.TYPE_NAME)
    except errors.NotFoundError:
        return ""
    live = [
        artifact
        for artifact in artifacts
        if artifact.state == Artifact.LIVE
        and artifact.custom_properties[PROJECT_PROPERTY].string_value == config.name
    ]
    if not live:
        return ""
    last = max(live, key=lambda artifact: artifact.id)
    uri = str(last.uri)
    if is_whole(uri):
        return uri
    number = last.custom_properties[SPAN_PROPERTY].int_value
    span = show_span(number, config.data.span_kind or "number")
    message = (
        f"ML Metadata lists profiles of the accepted spans through {span}, but their folder {uri} "
        "does not exist"
    )
    if config.drift.action == "stop":
        raise ConfigError(
            f"{message}. If `runs/` was moved, move it back or put a symbolic link in its old "
            "place. If the profiles are lost, run once with `--set drift.action=warn --push`: the "
            "newest span then becomes the first reference, without a comparison"
        )
    log.warning(message)
    return ""
