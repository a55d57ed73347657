import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[[str, str], Path]
OWN = ".setup/uv/bin/uv"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose only programs are those that a test puts into `bin`."""
    import find_uv

    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(find_uv, "_pythons", lambda: iter([tmp_path / "bin" / "python3"]))
    (tmp_path / ".setup").mkdir()
    return tmp_path


def find(root: Path) -> Path:
    from find_uv import find_uv

    return find_uv(root / ".setup", root / ".setup" / "setup.log")


def test_takes_the_one_on_the_path(bare: Path, program: Program) -> None:
    uv = program("bin/uv", "echo 'uv 0.9.1 (abc 2026-01-01)'")
    assert find(bare) == uv


@pytest.mark.parametrize("script", ["echo 'uv 0.4.30'", "exit 1", "echo 'a shim of uv'"])
def test_one_that_is_old_or_does_not_start_is_passed_over(
    bare: Path, program: Program, script: str
) -> None:
    program("bin/uv", script)
    own = program(OWN, "echo 'uv 0.13.9'")
    assert find(bare) == own


PIP = """\
[ "$1" != -c ] || exit 0
while [ $# -gt 1 ]; do
  if [ "$1" = --target ]; then target="$2"; fi
  shift
done
/bin/mkdir -p "$target/bin"
printf '#!/bin/sh\\necho uv 0.13.9\\n' > "$target/bin/uv"
/bin/chmod +x "$target/bin/uv"
"""


def test_gets_it_with_pip_into_the_project(bare: Path, program: Program) -> None:
    program("bin/python3", PIP)
    assert find(bare) == bare / OWN
    assert sorted(path.name for path in (bare / ".setup").iterdir()) == ["setup.log", "uv"]


def test_a_broken_one_of_the_project_is_got_again(bare: Path, program: Program) -> None:
    program(OWN, "exit 1")
    program("bin/python3", PIP)
    assert find(bare) == bare / OWN


def test_what_an_interrupted_download_left_is_removed(bare: Path, program: Program) -> None:
    program(".setup/uv.partial-x/bin/uv", "echo 'uv 0.13.9'")
    program("bin/python3", PIP)
    assert find(bare) == bare / OWN
    assert not (bare / ".setup" / "uv.partial-x").exists()


def test_makes_an_environment_where_pip_is_missing(bare: Path, program: Program) -> None:
    program("source", PIP)
    program(
        "bin/python3",
        '[ "$2" != "import pip._internal" ] || exit 1\n'
        f'/bin/mkdir -p "$3/bin"; /bin/cp {bare}/source "$3/bin/python"',
    )
    assert find(bare) == bare / OWN
    assert sorted(path.name for path in (bare / ".setup").iterdir()) == ["setup.log", "uv"]


@pytest.mark.parametrize(("name", "flag"), [("curl", "-o"), ("wget", "-O")])
def test_takes_uvs_own_installer_where_no_python_helps(
    bare: Path, program: Program, name: str, flag: str
) -> None:
    program("bin/python3", "exit 1")
    program(
        "bin/sh",
        'exec /bin/sh "$@"',
    )
    program(
        "installer",
        '/bin/mkdir -p "$UV_UNMANAGED_INSTALL"\n'
        "printf '#!/bin/sh\\necho uv 0.13.9\\n' > \"$UV_UNMANAGED_INSTALL/uv\"\n"
        '/bin/chmod +x "$UV_UNMANAGED_INSTALL/uv"',
    )
    program(
        f"bin/{name}",
        f'while [ "$1" != {flag} ]; do shift; done; /bin/cp {bare}/installer "$2"',
    )
    assert find(bare) == bare / OWN


def test_one_message_names_the_ways_to_get_it(bare: Path, program: Program) -> None:
    from steps import SetupError

    program("bin/python3", "echo 'no network' >&2; [ $1 = -c ]")
    with pytest.raises(SetupError) as error:
        find(bare)
    message = str(error.value)
    for way in ("python3-pip", "python3-venv", "pipx install", "curl"):
        assert way in message
    assert "no network" in (bare / ".setup" / "setup.log").read_text()
    assert not list((bare / ".setup").glob("uv*"))


def test_asks_every_python_that_starts(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    import find_uv

    stub = program("bin/python3.10", "exit 127")
    good = program("bin/python3.12", "exit 0")
    monkeypatch.setenv("PATH", str(stub.parent))
    found = list(find_uv._pythons())
    assert Path(sys.executable) in found
    assert good in found
    assert stub not in found
