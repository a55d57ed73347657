"""What a run's spans are held against, in a real ML Metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from components.drift_gate.accepted_spans import Delivery, LetPass, read_let_pass, write_let_pass
from components.artifacts import SpanProfile
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.config.file import load
from pipeline.runs.drift_baseline import last_let_pass
from pipeline.runs.metadata import open_store
from tests.pipeline.two_clubs import write_two_clubs

Artifact = metadata_store_pb2.Artifact


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    write_two_clubs(tmp_path, events={"files": "events-{SPAN}.csv"}, drift={"action": "stop"})
    return read(tmp_path)


def read(folder: Path, *overrides: str) -> PipelineConfig:
    return load(str(folder / "configs" / "clubs.yaml"), list(overrides))


def let_pass(
    config: PipelineConfig,
    span: int,
    *,
    use: str = "clubs",
    state: int = Artifact.LIVE,
    name: str = "",
) -> Path:
    """As DriftGate does."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    store = open_store(config)
    type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name=SpanProfile.TYPE_NAME))
    folder = config.run_dir / "artifacts" / f"{use}-{name or span}"
    folder.mkdir(parents=True)
    write_let_pass(str(folder), [], [(LetPass(Delivery(span, None, "0")), None)])
    artifact = Artifact(type_id=type_id, uri=str(folder), state=state)
    artifact.custom_properties["span"].int_value = span
    artifact.custom_properties["use"].string_value = use
    store.put_artifacts([artifact])
    return folder


def test_there_is_nothing_before_a_first_run(config: PipelineConfig) -> None:
    assert last_let_pass(config) == ""
    config.run_dir.mkdir(parents=True)
    open_store(config)
    assert last_let_pass(config) == ""
    let_pass(config, 3, use="other")
    assert last_let_pass(config) == ""


def test_it_is_what_the_last_run_of_the_use_left(config: PipelineConfig) -> None:
    let_pass(config, 9)
    again = let_pass(config, 5)
    let_pass(config, 10, state=Artifact.ABANDONED)
    let_pass(config, 11, use="other")
    assert last_let_pass(config) == str(again)
    [entry] = read_let_pass(str(again))
    assert entry == LetPass(Delivery(5, None, "0"))


def test_what_is_gone_stops_a_run(config: PipelineConfig, tmp_path: Path) -> None:
    let_pass(config, 8)
    folder = let_pass(config, 9)
    folder.rename(tmp_path / "moved")
    told = rf"up to 9, and they are gone: there is no {folder}\. .* move it back"
    with pytest.raises(ConfigError, match=told):
        last_let_pass(config)
    assert last_let_pass(read(tmp_path, "drift.action=warn")) == ""
    # A removal that was killed, or a profile from before there was a ledger.
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"drift\.action=warn"):
        last_let_pass(config)
    # What was let pass after that is whole.
    assert str(let_pass(config, 10)) == last_let_pass(config)
