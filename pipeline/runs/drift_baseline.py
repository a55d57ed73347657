"""Finds what new spans are held against: plain Python, before the pipeline is put together."""

import logging

from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2

from components.artifacts import PROJECT_PROPERTY, SPAN_PROPERTY, SpanProfile
from components.drift_gate.accepted_spans import is_whole
from components.interactions.spans.pattern import show_span
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.runs.metadata import has_metadata, open_store

log = logging.getLogger(__name__)


def last_let_pass(config: PipelineConfig) -> str:
    """Returns the URI of what the last run left whose spans were let pass; "" where none was.

    A run that was stopped leaves nothing, so its spans never become the measure of others.

    Args:
        config: The use.

    Raises:
        ConfigError: It is gone, and `drift.action` is `stop`.
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
        if artifact.state == metadata_store_pb2.Artifact.LIVE
        and artifact.custom_properties[PROJECT_PROPERTY].string_value == config.name
    ]
    if not live:
        return ""
    last = max(live, key=lambda artifact: artifact.id)
    uri = str(last.uri)
    if is_whole(uri):
        return uri
    span = show_span(
        last.custom_properties[SPAN_PROPERTY].int_value, config.data.span_kind or "number"
    )
    message = (
        f"ML Metadata names profiles of spans up to {span}, and they are gone: there is no {uri}"
    )
    if config.drift.action == "stop":
        raise ConfigError(
            f"{message}. If `runs/` was moved, move it back, or let a link stand in its old place; "
            "if they are lost, run once with `--set drift.action=warn`: the newest span becomes "
            "the first measure, and is compared with nothing"
        )
    log.warning(message)
    return ""
