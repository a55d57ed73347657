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
import pipeline.runs.run
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


def test_threads_wait_for_the_one_that_runs_the_code(tmp_path: Path):
    (tmp_path / "lazy_slow").mkdir()
    (tmp_path / "lazy_slow" / "__init__.py").write_text(
        "import time\nprint('runs')\ntime.sleep(0.2)\nanswer = 42\n"
    )
    code = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, {str(tmp_path)!r})
from components.lazy_packages import import_lazily
import_lazily("lazy_slow")
import lazy_slow
with ThreadPoolExecutor(4) as threads:
    print(list(threads.map(lambda _: lazy_slow.answer, range(4))))
"""
    assert run(code).splitlines() == ["runs", "[42, 42, 42, 42]"]


def test_code_that_fails_says_why_each_time_and_may_work_later(tmp_path: Path):
    (tmp_path / "lazy_broken").mkdir()
    (tmp_path / "lazy_broken" / "__init__.py").write_text(
        "import lazy_broken\n"
        "print(hasattr(lazy_broken, 'answer'))\n"
        "import comes_late\n"
        "answer = comes_late.answer\n"
    )
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(tmp_path)!r})
from components.lazy_packages import import_lazily
import_lazily("lazy_broken")
import lazy_broken
for _ in range(2):
    try:
        lazy_broken.answer
    except ImportError as error:
        print(error)
Path({str(tmp_path / "comes_late.py")!r}).write_text("answer = 42")
sys.path_importer_cache.clear()
print(lazy_broken.answer, hasattr(lazy_broken, "_own_code"), type(lazy_broken))
"""
    missing = ["False", "No module named 'comes_late'"]
    assert run(code).splitlines() == [*missing, *missing, "False", "42 False <class 'module'>"]


@pytest.mark.parametrize("pickler", ["cloudpickle", "dill"])
def test_is_pickled_by_name(tmp_path: Path, pickler: str):
    (tmp_path / "lazy_pickled").mkdir()
    (tmp_path / "lazy_pickled" / "__init__.py").write_text("print('runs')\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import {pickler}
from components.lazy_packages import import_lazily
import_lazily("lazy_pickled")
import lazy_pickled
print({pickler}.loads({pickler}.dumps(lazy_pickled)) is lazy_pickled)
"""
    assert run(code).splitlines() == ["True"]
