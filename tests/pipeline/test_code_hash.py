from pathlib import Path

import pytest

from pipeline import code_hash as module
from pipeline.code_hash import code_hash


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.py").write_text("x = 1\n")
    (tmp_path / "models" / "b.py").write_text("y = 1\n")
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    return tmp_path


def test_an_edit_changes_the_hash_and_its_undoing_restores_it(root: Path) -> None:
    before = code_hash("models")
    (root / "models" / "a.py").write_text("x = 2\n")
    assert code_hash("models") != before
    (root / "models" / "a.py").write_text("x = 1\n")
    assert code_hash("models") == before


def test_a_renamed_file_changes_the_hash(root: Path) -> None:
    before = code_hash("models")
    (root / "models" / "a.py").rename(root / "models" / "c.py")
    assert code_hash("models") != before


def test_other_places_do_not_count(root: Path) -> None:
    before = code_hash("models/a.py")
    (root / "models" / "b.py").write_text("y = 2\n")
    assert code_hash("models/a.py") == before


def test_a_place_that_does_not_exist_is_an_error_and_no_empty_hash(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        code_hash("modles")
