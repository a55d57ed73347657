"""Finds what a new span is held against: plain Python, before the pipeline is put together."""

import os

from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2

from components.drift_gate.spec import SPAN_PROPERTY, USE_PROPERTY, SpanProfile
from pipeline.config import PipelineConfig
from pipeline.metadata_store import has_metadata, open_store


def last_good_profile(config: PipelineConfig, span: int) -> str:
    """Returns the URI of the profile of the newest earlier span that was let pass; else "".

    A span that stopped a run leaves no profile, so it never becomes the measure of others.

    Args:
        config: The use.
        span: The newest span of the run to come.
    """
    if not has_metadata(config):
        return ""
    try:
        artifacts = open_store(config).get_artifacts_by_type(SpanProfile.TYPE_NAME)
    except errors.NotFoundError:
        return ""
    earlier = [
        (artifact.custom_properties[SPAN_PROPERTY].int_value, artifact.id, artifact.uri)
        for artifact in artifacts
        if artifact.state == metadata_store_pb2.Artifact.LIVE
        and artifact.custom_properties[USE_PROPERTY].string_value == config.name
        and artifact.custom_properties[SPAN_PROPERTY].int_value < span
        and ("://" in artifact.uri or os.path.exists(artifact.uri))
    ]
    return str(max(earlier)[2]) if earlier else ""
