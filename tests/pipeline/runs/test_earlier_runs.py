"""The reference of a run's spans, in a real ML Metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from components.artifacts import PROJECT_PROPERTY, SPAN_PROPERTY, SpanProfile
from components.drift_gate.accepted_spans import (
    AcceptedSpan,
    Delivery,
    read_accepted,
    write_accepted,
)
from pipeline.config.file import load
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.runs.earlier_runs import last_accepted_spans
from pipeline.runs.metadata import open_store
from tests.builders import project

Artifact = metadata_store_pb2.Artifact


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return project(
        tmp_path, events={"files": "events-{SPAN}.csv"}, drift={"action": "stop"}
    )


def accept(
    config: PipelineConfig,
    span: int,
    *,
    project: str = "clubs",
    state: int = Artifact.LIVE,
    name: str = "",
) -> Path:
    """Record an accepted span, as DriftGate does."""
    store = open_store(config)
    type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name=SpanProfile.TYPE_NAME))
    folder = config.run_dir / "artifacts" / f"{project}-{name or span}"
    folder.mkdir(parents=True)
    write_accepted(str(folder), [], [(AcceptedSpan(Delivery(span, None, "0")), None)])
    artifact = Artifact(type_id=type_id, uri=str(folder), state=state)
    artifact.custom_properties[SPAN_PROPERTY].int_value = span
    artifact.custom_properties[PROJECT_PROPERTY].string_value = project
    store.put_artifacts([artifact])
    return folder


def test_there_is_no_reference_before_a_first_run(config: PipelineConfig) -> None:
    assert last_accepted_spans(config) == ""
    open_store(config)
    assert last_accepted_spans(config) == ""
    accept(config, 3, project="other")
    assert last_accepted_spans(config) == ""


def test_the_reference_is_that_of_the_projects_last_accepted_run(config: PipelineConfig) -> None:
    accept(config, 9)
    again = accept(config, 5)
    accept(config, 10, state=Artifact.ABANDONED)
    accept(config, 11, project="other")
    assert last_accepted_spans(config) == str(again)
    assert read_accepted(str(again)) == [AcceptedSpan(Delivery(5, None, "0"))]


def test_missing_profiles_stop_a_run(config: PipelineConfig, tmp_path: Path) -> None:
    accept(config, 8)
    folder = accept(config, 9)
    folder.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=rf"through 9.* {folder} does not exist.* move it back"):
        last_accepted_spans(config)
    assert last_accepted_spans(load(str(tmp_path / "configs" / "clubs.yaml"), ["drift.action=warn"])) == ""
    # A removal that was killed, or a profile from before there was a ledger.
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"drift\.action=warn"):
        last_accepted_spans(config)
    # The profiles of a later run are complete.
    assert str(accept(config, 10)) == last_accepted_spans(config)
