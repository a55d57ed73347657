import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[[str, str], Path]

# What pyenv's shim of a version that is installed and not selected says.
STUB = "echo \"pyenv: python3.10: command not found\" >&2; echo 'see: pyenv help' >&2; exit 127"
REAL = f'exec "{Path(sys.executable).resolve()}" "$@"'


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any Python 3.10; its PATH holds only `bin`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setattr(sys, "executable", "")
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: str(path).startswith(str(tmp_path)) and real(path, mode)
    )
    return tmp_path


def test_this_python_can_be_used() -> None:
    from find_python import why_not

    assert why_not(Path(sys.executable)) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (STUB, "does not start: pyenv: python3.10: command not found"),
        ("echo cpython 3 11 True", "is cpython 3.11"),
        ("echo pypy 3 10 True", "is pypy 3.10"),
        ("echo hello", "is no Python"),
        ("exit 3", "does not start: 3"),
        (
            "printf 'Traceback (most recent call last):\\nImportError: no _bz2\\n' >&2; exit 1",
            "does not start: ImportError: no _bz2",
        ),
    ],
)
def test_says_why_one_cannot_be_used(program: Program, script: str, reason: str) -> None:
    from find_python import why_not

    assert why_not(program("python3.10", script)) == reason


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    from find_python import why_not

    assert "does not start" in (why_not(tmp_path / "none") or "")


def test_names_the_folder_that_keeps_other_users_from_a_python(tmp_path: Path) -> None:
    from find_python import closed_folder

    home = tmp_path / "home"
    python = home / ".pyenv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    link = tmp_path / "python3.10"
    link.symlink_to(python)
    home.chmod(0o711)
    above = closed_folder(tmp_path / "python")
    assert closed_folder(link) == above
    home.chmod(0o700)
    assert closed_folder(link) == (above or home)


def test_looks_behind_a_stub_into_pyenv(bare: Path, program: Program) -> None:
    from find_python import find_python

    program("bin/python3.10", STUB)
    python = program("home/.pyenv/versions/3.10.13/bin/python", REAL)
    uv = program("bin/uv", "exit 1")
    assert find_python(uv, bare / "python", bare / "log", dict(os.environ)) == python


def test_takes_the_one_that_uv_knows(bare: Path, program: Program) -> None:
    from find_python import find_python

    python = program("managed/python", REAL)
    uv = program("uv", f'[ "$2" = find ] && echo "{python}"')
    assert find_python(uv, bare / "python", bare / "log", dict(os.environ)) == python


def test_has_uv_install_one_into_the_project(bare: Path, program: Program) -> None:
    from find_python import find_python

    program("source", REAL)
    uv = program(
        "uv",
        f'target="$UV_PYTHON_INSTALL_DIR/python"\n'
        f'if [ "$2" = install ]; then /bin/mkdir -p "$UV_PYTHON_INSTALL_DIR"\n'
        f'/bin/cp {bare}/source "$target"; fi\n'
        f'[ -n "$UV_PYTHON_INSTALL_DIR" ] && [ -e "$target" ] && echo "$target"',
    )
    folder = bare / "own"
    assert find_python(uv, folder, bare / "log", dict(os.environ)) == folder / "python"


def test_one_message_names_what_was_tried_and_the_ways_to_get_one(
    bare: Path, program: Program
) -> None:
    from find_python import find_python
    from steps import SetupError

    stub = program("bin/python3.10", STUB)
    uv = program("uv", "echo offline >&2; exit 1")
    with pytest.raises(SetupError) as error:
        find_python(uv, bare / "python", bare / "log", dict(os.environ))
    message = str(error.value)
    assert f"{stub} does not start: pyenv: python3.10: command not found" in message
    for way in ("pyenv install", "apt-get install", "conda create", "uv python install"):
        assert way in message
