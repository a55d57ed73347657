"""Find uv, or get it without touching anything outside the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from find_python import candidates
from steps import SetupError, run_step

VERSION = "0.13.9"
# Since then `uv venv` has --clear.
OLDEST = (0, 8)
INSTALLER = f"https://astral.sh/uv/{VERSION}/install.sh"
_PARTIAL = "uv.partial-"


def version_of(uv: Path) -> tuple[int, ...] | None:
    """Return the version of a uv by starting it, or None if it does not start."""
    try:
        done = subprocess.run(
            [str(uv), "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"uv (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, match.groups())) if match and done.returncode == 0 else None


def find_uv(folder: Path, log: Path) -> Path:
    """Return a uv that starts and is new enough; get one if there is none.

    Args:
        folder: the project's own folder for tools; uv goes to `uv` in it.
        log: the set-up's log.

    Returns:
        The path of the program.

    Raises:
        SetupError: there is none, and every way to get one failed.
    """
    for abandoned in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    own = folder / "uv" / "bin" / "uv"
    on_path = shutil.which("uv")
    if on_path and (version_of(Path(on_path)) or ()) >= OLDEST:
        return Path(on_path)
    if version_of(own) is not None:
        return own
    folder.mkdir(parents=True, exist_ok=True)
    for get in _ways():
        # Into a folder aside, so that an interrupted download is never taken for a whole uv.
        aside = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
        try:
            get(aside, log)
            if version_of(aside / "bin" / "uv") is not None:
                shutil.rmtree(folder / "uv", ignore_errors=True)
                aside.chmod(0o755)  # mkdtemp gives 0o700
                aside.rename(folder / "uv")
                return own
        except SetupError:
            continue  # the log holds the reason
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    raise SetupError(
        f"uv {VERSION} is needed to install the locked packages, and could not be got.\n"
        "Any of these helps; then run `make` again:\n"
        "    apt-get install python3-pip\n"
        "    apt-get install python3-venv\n"
        f"    pipx install uv=={VERSION}, or any other way that puts uv on the PATH\n"
        "    apt-get install curl                  (where uv's own installer can be reached)\n"
        f"The output of what was tried is in {log}."
    )


def _ways() -> Iterator[Callable[[Path, Path], None]]:
    """Yield the ways to put `bin/uv` into a folder, the least demanding first."""
    pythons = list(_pythons())
    have_pip = [python for python in pythons if _starts(python, "import pip._internal")]
    # Where two fail, the reason is the network, and each more would only add its time-outs.
    for python in have_pip[:2]:
        yield partial(_with_pip, python)
    if not have_pip:
        for python in pythons:
            yield partial(_with_venv, python)
    if shutil.which("curl") or shutil.which("wget"):
        yield _with_installer


def _pythons() -> Iterator[Path]:
    """Yield the running Python and the others of this machine that start."""
    names = ["python3", *(f"python3.{minor}" for minor in range(9, 16)), "python"]
    found = [sys.executable, *map(shutil.which, names), "/usr/bin/python3"]
    found += map(str, candidates())
    seen: set[str] = set()
    for python in found:
        if not python or not os.access(python, os.X_OK) or python in seen:
            continue
        seen.add(python)
        if _starts(Path(python), "import sys; sys.exit(sys.version_info < (3, 8))"):
            yield Path(python)


def _starts(python: Path, code: str) -> bool:
    done = subprocess.run([str(python), "-c", code], capture_output=True, check=False)
    return done.returncode == 0


def _with_pip(python: Path, target: Path, log: Path) -> None:
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    run_step(
        [*command, "--target", target, f"uv=={VERSION}"], what="installing uv with pip", log=log
    )


def _with_venv(python: Path, target: Path, log: Path) -> None:
    # Debian ships pip's wheel apart from Python, so this may work where `-m pip` does not.
    with tempfile.TemporaryDirectory(prefix=f"{_PARTIAL}venv-", dir=target.parent) as venv:
        run_step([python, "-m", "venv", venv], what="making an environment for uv", log=log)
        _with_pip(Path(venv, "bin", "python"), target, log)


def _with_installer(target: Path, log: Path) -> None:
    script = target / "install.sh"
    fetch = (
        ["curl", "-LsSf", "--connect-timeout", "20", "-o", script, INSTALLER]
        if shutil.which("curl")
        else ["wget", "-q", "--timeout=20", "--tries=2", "-O", script, INSTALLER]
    )
    run_step(fetch, what="fetching uv's installer", log=log)
    # Unmanaged: it only unpacks the program, and edits no shell profile.
    env = {**os.environ, "UV_UNMANAGED_INSTALL": str(target / "bin")}
    run_step(["sh", script], what="running uv's installer", log=log, env=env)
    script.unlink()


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    try:
        print(find_uv(root / ".setup", root / ".setup" / "setup.log"))
    except SetupError as error:
        sys.exit(f"error: {error}")
