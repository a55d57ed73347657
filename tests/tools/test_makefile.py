import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    listed = re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())


def test_the_lock_names_no_host() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_set_up_speaks_python_3_9() -> None:
    # `match`, `X | Y` outside annotations and the like would stop it before it can say why.
    import ast

    for path in (ROOT / "tools").glob("*.py"):
        source = path.read_text()
        ast.parse(source, feature_version=(3, 9))
        assert "from __future__ import annotations" in source
