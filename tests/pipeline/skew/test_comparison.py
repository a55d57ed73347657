from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.features.preprocessing import SPACE_IN_ID
from models.features.spec import HISTORY_KEY
from pipeline.config.project import PipelineConfig
from pipeline.skew import comparison
from tests.builders import project


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return project(tmp_path, "model.query_id_embedding=true")


def queries(config: PipelineConfig, ids: list[str]) -> Any:
    rows: list[dict[str, list[Any]]] = [
        {"user": [one] if one else [], "club": [], HISTORY_KEY: []} for one in ids
    ]
    asked = comparison._Queries(config.spec, iter(rows))
    list(asked.batches())
    return asked


def test_query_ids_that_training_did_not_know_are_counted(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = tmp_path / "user"
    vocabulary.write_text(f"2 user{SPACE_IN_ID}1\n1 user{SPACE_IN_ID}2\n")
    kept = SimpleNamespace(vocabulary_file_by_name={"user": str(vocabulary)}.get)
    monkeypatch.setattr(comparison.tft, "TFTransformOutput", lambda uri: kept)
    asked = queries(config, ["user 1", "user 1", "user 2", "x-1", "x-2", "x-1", "", "x-3"])
    found = comparison._unknown_queries(config, asked, "")
    assert (found.value, found.is_exceeded) == (5 / 8, True)
    assert "share of 4 unknown or missing IDs" in str(found)
    assert not comparison._unknown_queries(config, queries(config, ["user 2", "x"]), "").is_exceeded


def test_query_ids_without_a_vocabulary_could_not_be_measured(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = SimpleNamespace(vocabulary_file_by_name={}.get)
    monkeypatch.setattr(comparison.tft, "TFTransformOutput", lambda uri: kept)
    found = comparison._unknown_queries(config, queries(config, ["user 1"]), "")
    assert "no embeddings" in str(found)
    assert found.is_exceeded
