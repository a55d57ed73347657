from pathlib import Path

import pytest

from pipeline import code_hash as module
from pipeline.code_hash import application_hash, code_hash

TREE = {
    "components/__init__.py": "",
    "components/gate/component.py": (
        "import os\n\nfrom models.a import x\n\n\ndef f():\n    if x:\n"
        "        from components.gate import rules\n"
    ),
    "components/gate/rules.py": "import serving.server\n",
    "components/other.py": "from components.gate import component\n",
    "models/a.py": "import models.b as b\n",
    "models/b.py": "from models.a import y\n",
    "serving/__init__.py": "",
    "serving/server.py": "y = 1\n",
}
IMPORTED = sorted(set(TREE) - {"components/other.py"})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("edited", IMPORTED)
def test_an_edit_of_an_imported_module_changes_the_hash(root: Path, edited: str) -> None:
    before = code_hash("components.gate.component")
    (root / edited).write_text(TREE[edited] + "# an edit\n")
    assert code_hash("components.gate.component") != before
    (root / edited).write_text(TREE[edited])
    assert code_hash("components.gate.component") == before


def test_an_edit_of_another_module_does_not_change_the_hash(root: Path) -> None:
    before, of_all = code_hash("components.gate.component"), application_hash()
    (root / "components" / "other.py").write_text("z = 2\n")
    assert code_hash("components.gate.component") == before
    assert application_hash() != of_all


def test_a_module_that_does_not_exist_is_an_error(root: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"components\.gates"):
        code_hash("components.gates.component")
