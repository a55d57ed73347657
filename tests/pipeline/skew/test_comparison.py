from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.features.preprocessing import SPACE_IN_ID
from models.features.spec import HISTORY_KEY
from pipeline.skew import comparison
from tests.builders import project


def unknown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, known: str | None, ids: list[str]
) -> Any:
    """Compare query IDs with a vocabulary of a trained model."""
    config = project(folder, "model.query_id_embedding=true")
    (folder / "vocabulary").write_text(known or "")
    files = {"user": str(folder / "vocabulary")} if known else {}
    output = SimpleNamespace(vocabulary_file_by_name=files.get)
    monkeypatch.setattr(comparison.tft, "TFTransformOutput", lambda uri: output)
    rows: list[dict[str, list[Any]]] = [
        {"user": [one] if one else [], "club": [], HISTORY_KEY: []} for one in ids
    ]
    queries = comparison.Queries(config.spec, iter(rows))
    list(queries.batches())
    return comparison.unknown_queries(config, queries, "")


def test_query_ids_that_training_did_not_know_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = f"2 user{SPACE_IN_ID}1\n1 user{SPACE_IN_ID}2\n"
    ids = ["user 1", "user 1", "user 2", "x-1", "x-2", "x-1", "", "x-3"]
    found = unknown(tmp_path, monkeypatch, known, ids)
    assert (found.value, found.is_exceeded) == (5 / 8, True)
    assert "share of 4 unknown or missing IDs" in str(found)
    assert not unknown(tmp_path / "2", monkeypatch, known, ["user 2", "x"]).is_exceeded


def test_query_ids_without_a_vocabulary_could_not_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = unknown(tmp_path, monkeypatch, None, ["user 1"])
    assert "no embeddings" in str(found)
    assert found.is_exceeded
