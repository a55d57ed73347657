"""Packages that import their contents when they are asked for, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("nltk", "sklearn", "keras_tuner", "kubernetes", "tensorflow_model_analysis.metrics")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_step_imports_nothing_that_it_does_not_need():
    code = f"""
import sys
from pathlib import Path
import pipeline.single_component
print([name for name in {HEAVY} if name in sys.modules])
import tfx.components, tensorflow_model_analysis
tfx.components.Evaluator, tensorflow_model_analysis.EvalConfig
from tfx.components import CsvExampleGen, bulk_inferrer
print(tfx.components.nothing if hasattr(tfx.components, "nothing") else "complete")
"""
    assert run(code).splitlines()[-2:] == ["[]", "complete"]


def test_a_package_runs_its_own_code_when_only_that_can_answer(tmp_path: Path):
    package = tmp_path / "lazy_example"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from lazy_example import second\nanswer = second.two * 21\n"
    )
    (package / "first.py").write_text("one = 1\n")
    (package / "second.py").write_text("two = 2\n")
    (package / "broken.py").write_text("import not_to_be_found\n")
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(tmp_path)!r})
from components.lazy_packages import import_lazily
import_lazily("lazy_example", "lazy_example.not_there", "neither.nor")
import lazy_example.first
from lazy_example import first
print(first.one, "lazy_example.second" in sys.modules)
try:
    lazy_example.broken
except ModuleNotFoundError as error:
    print(error.name)
print(lazy_example.answer, hasattr(lazy_example, "nothing"), hasattr(lazy_example, "__wrapped__"))
"""
    assert run(code).splitlines() == ["1 False", "not_to_be_found", "42 False False"]
