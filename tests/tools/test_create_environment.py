import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[[str, str], Path]

# Does what uv does as far as the set-up can see, and writes down how it was called.
FAKE_UV = """\
echo "$@" >> "{root}/calls"
case "$1 $2" in
  "--version "*) echo "uv 0.13.9" ;;
  "venv "*) for venv; do :; done; mkdir -p "$venv/bin"
    printf 'home = x\\n' > "$venv/pyvenv.cfg"
    ln -sf "{python}" "$venv/bin/python" ;;
  "pip sync") [ ! -e "{root}/offline" ] || {{ echo "no network" >&2; exit 2; }} ;;
  "pip install") touch "{root}/.venv/bin/two-tower" ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a fake uv that makes an environment of the running Python."""
    import create_environment

    root = tmp_path / "project"
    (root / "tools").mkdir(parents=True)
    (root / "tools" / "x.py").write_text("")
    (root / "setup.py").write_text("setup()")
    (root / "requirements.lock").write_text("a==1")
    (root / "pyproject.toml").write_text("[tool.uv]\na = 1\n[tool.ruff]\nb = 2\n")
    python = Path(sys.executable).resolve()
    uv = program("uv", FAKE_UV.format(root=root, python=python))
    monkeypatch.setattr(create_environment, "find_uv", lambda *_: uv)
    monkeypatch.setattr(create_environment, "find_python", lambda *_: python)
    return root


def calls(root: Path) -> list[str]:
    """The first two words of each call of uv since the last question."""
    path = root / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [" ".join(line.split()[:2]).replace(" --quiet", "") for line in lines]


def set_up(root: Path) -> None:
    from create_environment import create_environment

    create_environment(root)


def test_a_second_set_up_does_nothing_and_says_so(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(root)
    assert calls(root) == ["venv", "pip sync", "pip install"]
    capsys.readouterr()
    set_up(root)
    assert calls(root) == []
    assert "nothing to do" in capsys.readouterr().out


def test_times_play_no_part(root: Path) -> None:
    set_up(root)
    calls(root)
    (root / "setup.py").touch()
    (root / "requirements.lock").touch()
    set_up(root)
    assert calls(root) == []


@pytest.mark.parametrize("name", ["setup.py", "requirements.lock", "tools/x.py"])
def test_an_edit_brings_the_environment_up_to_date(root: Path, name: str) -> None:
    set_up(root)
    calls(root)
    (root / name).write_text("another")
    set_up(root)
    assert calls(root) == ["pip sync", "pip install"]


def test_of_pyproject_only_the_sections_that_matter_count(root: Path) -> None:
    set_up(root)
    calls(root)
    (root / "pyproject.toml").write_text("[tool.uv]\na = 1\n[tool.ruff]\nb = 3\n")
    set_up(root)
    assert calls(root) == []
    (root / "pyproject.toml").write_text("[tool.uv]\na = 2\n[tool.ruff]\nb = 3\n")
    set_up(root)
    assert calls(root) == ["pip sync", "pip install"]


def test_a_failure_shows_the_end_of_the_output_and_is_mended_by_the_next_set_up(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from steps import SetupError

    (root / "offline").touch()
    with pytest.raises(SetupError, match="no network") as error:
        set_up(root)
    assert "run `make` again" in str(error.value)
    (root / "offline").unlink()
    (root / "calls").unlink()
    set_up(root)
    assert "--reinstall" in (root / "calls").read_text()
    assert "mended" in capsys.readouterr().out
    set_up(root)


def test_an_environment_whose_python_is_gone_is_made_anew(root: Path) -> None:
    set_up(root)
    calls(root)
    (root / ".venv" / "bin" / "python").unlink()
    set_up(root)
    assert calls(root) == ["venv", "pip sync", "pip install"]


def test_an_environment_without_the_command_is_completed(root: Path) -> None:
    set_up(root)
    calls(root)
    (root / ".venv" / "bin" / "two-tower").unlink()
    set_up(root)
    assert calls(root) == ["pip sync", "pip install"]


def test_a_moved_project_is_set_up_again(root: Path) -> None:
    from environment_stamp import wanted_stamp

    moved = root.parent / "moved"
    before = wanted_stamp(root)
    root.rename(moved)
    assert wanted_stamp(moved) != before


def test_too_little_disk_is_said_before_anything_is_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import create_environment
    from steps import SetupError

    monkeypatch.setattr(create_environment, "NEEDED_GB", 1e9)
    with pytest.raises(SetupError, match="free disk space"):
        set_up(root)
    assert not (root / ".venv").exists()


def test_another_kind_of_machine_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import create_environment
    from steps import SetupError

    monkeypatch.setattr(create_environment.platform, "machine", lambda: "aarch64")
    with pytest.raises(SetupError, match=r"x86_64.*aarch64"):
        set_up(root)


def test_waits_for_the_child_of_a_killed_set_up(root: Path, program: Program) -> None:
    from steps import run_step

    (root / ".setup").mkdir()
    code = (
        "import fcntl, os, sys\nsys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom steps import run_step\n"
        "lock = open(sys.argv[2], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print('in', flush=True)\n"
        "run_step(['sleep', '1.5'], what='x', log=Path(sys.argv[3]), keep_open=[lock.fileno()])\n"
    )
    tools = str(Path(run_step.__code__.co_filename).parent)
    arguments = [tools, str(root / ".setup" / "lock"), str(root / "log")]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.kill()
    process.wait()
    started = time.monotonic()
    set_up(root)
    assert time.monotonic() - started > 0.5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"PIP_INDEX_URL": "https://mirror.example/simple"}, "https://mirror.example/simple"),
        (
            {"PIP_INDEX_URL": "https://a.example", "UV_DEFAULT_INDEX": "https://b.example"},
            "https://b.example",
        ),
        ({}, None),
    ],
)
def test_uv_uses_the_index_that_pip_was_told_of(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None
) -> None:
    from create_environment import _environment

    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert _environment().get("UV_DEFAULT_INDEX") == expected
