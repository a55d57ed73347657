import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

# Behaves like uv as far as the set-up can see, and records how it was called.
FAKE_UV = """\
#!/bin/sh
case "$1" in
  "--version") echo "uv {version}"; exit ;;
esac
echo "$1 $2" >> "{root}/calls"
case "$1 $2" in
  "venv "*) for venv; do :; done; mkdir -p "$venv/bin"; ln -sf "{python}" "$venv/bin/python" ;;
  "pip sync") [ ! -e "{root}/offline" ] || {{ echo "no network" >&2; exit 2; }} ;;
esac
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import create_environment

    return create_environment


@pytest.fixture
def root(tmp_path: Path, module: ModuleType) -> Path:
    """A project whose own uv is a fake that creates an environment of the running Python."""
    root = tmp_path / "project"
    uv = root / ".setup" / "uv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    python = Path(sys.executable).resolve()
    uv.write_text(FAKE_UV.format(version=module.UV_VERSION, root=root, python=python))
    uv.chmod(0o755)
    (root / "tools").mkdir()
    for name in module._STAMPED:
        (root / name).write_text("first")
    return root


def calls(root: Path) -> list[str]:
    """The first two words of each call of uv since the last look."""
    path = root / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line if line.startswith("pip") else line.split()[0] for line in lines]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: (root / "setup.py").touch(), []),
        (lambda root: (root / "requirements.lock").write_text("2"), ["pip sync", "pip install"]),
        (lambda root: (root / ".venv/bin/python").unlink(), ["venv", "pip sync", "pip install"]),
        (lambda root: (root / ".venv/setup.stamp").unlink(), ["venv", "pip sync", "pip install"]),
    ],
    ids=["nothing", "an edit", "the Python is gone", "interrupted before the stamp"],
)
def test_a_second_set_up_does_what_a_change_needs(
    root: Path,
    module: ModuleType,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    expected: list[str],
) -> None:
    module.create_environment(root)
    assert calls(root) == ["venv", "pip sync", "pip install"]
    capsys.readouterr()
    change(root)
    module.create_environment(root)
    assert calls(root) == expected
    assert ("nothing to do" in capsys.readouterr().out) is (not expected)


def test_a_failure_shows_the_end_of_the_output_and_the_next_set_up_starts_over(
    root: Path, module: ModuleType
) -> None:
    (root / "offline").touch()
    with pytest.raises(module.SetupError, match=r"(?s)no network.*run `make` again"):
        module.create_environment(root)
    (root / "offline").unlink()
    calls(root)
    module.create_environment(root)
    assert calls(root) == ["venv", "pip sync", "pip install"]


def test_a_machine_that_does_not_fit_is_refused_before_anything_is_created(
    root: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    with pytest.raises(module.SetupError, match=r"x86_64.*aarch64"):
        module.create_environment(root)
    assert not (root / ".venv").exists()


def test_a_uv_of_another_version_is_replaced_by_one_from_pip(
    root: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def pip(command: list[object], log: Path) -> None:
        commands.append(command)
        Path(str(command[command.index("--target") + 1])).mkdir()

    monkeypatch.setattr(module, "run", pip)
    monkeypatch.setattr(module, "UV_VERSION", "99.0.0")
    assert module.find_uv(root / ".setup", root / "log") == root / ".setup/uv/bin/uv"
    assert commands[0][-1] == "uv==99.0.0"


def test_the_set_up_parses_as_python_3_9() -> None:
    # Newer syntax would stop an old interpreter before it can print what is wrong.
    import ast

    for path in TOOLS.glob("*.py"):
        source = path.read_text()
        ast.parse(source, feature_version=(3, 9))
        assert "from __future__ import annotations" in source


def test_make_help_lists_every_target() -> None:
    root = TOOLS.parent
    phony = next(
        line for line in (root / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")
    )
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    listed = [line.split()[1] for line in shown.splitlines() if line.startswith("  make ")]
    assert sorted(listed) == sorted(phony.split()[1:])


def test_the_lock_names_no_host() -> None:
    assert "://" not in (TOOLS.parent / "requirements.lock").read_text()
