"""Benchmarks import late and seldom run, so that a moved module would go unnoticed."""

import ast
import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PACKAGES = ("benchmarks", "components", "models", "pipeline", "serving", "tests")


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_import_from_this_project_exists(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                # A module that was not imported before is no attribute of its package.
                assert hasattr(module, alias.name) or importlib.util.find_spec(name), name
