"""Create `.venv`: Python 3.10, the locked packages and the `two-tower` command.

`make` runs this script with Python 3.9 or newer and without packages. It can be interrupted and run
again, because the stamp file, which marks the environment as complete, is written last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV_VERSION = "0.13.9"
_STAMPED = ("setup.py", "requirements.lock", "pyproject.toml", "tools/create_environment.py")
_ADVICE = (
    "Check the network (UV_DEFAULT_INDEX or PIP_INDEX_URL names a mirror of the package index) and "
    "the free disk space, then run `make` again: downloads are kept."
)


class SetupError(Exception):
    """The environment cannot be created; the message says how to fix it."""


def create_environment(root: Path) -> None:
    """Create or update `.venv` from the lock file and `setup.py`, unless it is up to date."""
    folder = root / ".setup"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        venv, stamp = root / ".venv", root / ".venv" / "setup.stamp"
        python = venv / "bin" / "python"
        if stamp.exists() and stamp.read_text() == wanted_stamp(root) and starts(python):
            print("The environment .venv is up to date: nothing to do.")
            return
        check_machine()
        print("Creating .venv (needs 4 GB; takes one to ten minutes)", flush=True)
        log = folder / "setup.log"
        log.unlink(missing_ok=True)
        uv = find_uv(folder, log)
        # Without a stamp, an interrupted sync may have left incomplete packages.
        if not (stamp.exists() and starts(python)):
            run([uv, "venv", "--clear", "--no-project", "--python", "3.10", venv], log)
        stamp.unlink(missing_ok=True)
        sync = [uv, "pip", "sync", "--python", python, "--require-hashes", "--compile-bytecode"]
        run([*sync, root / "requirements.lock"], log)
        install = [uv, "pip", "install", "--python", python, "--no-deps", "--no-build-isolation"]
        run([*install, "--editable", root], log)
        stamp.write_text(wanted_stamp(root))
    print("Done. `make help` lists the targets; the command is\n    .venv/bin/two-tower --help")


def wanted_stamp(root: Path) -> str:
    """Return a hash of the files that define the environment, and of the project's path."""
    digest = hashlib.sha256(str(root).encode())
    for name in _STAMPED:
        digest.update(b"\0" + (root / name).read_bytes())
    return digest.hexdigest()


def starts(python: Path) -> bool:
    """Return whether `python` is a working Python 3.10."""
    code = "import bz2, ctypes, lzma, ssl, sys; print(sys.version_info[:2] == (3, 10))"
    return _answers([python, "-c", code]).strip() == "True"


def check_machine() -> None:
    """Raise SetupError if this machine cannot run the locked packages."""
    libc, version = platform.libc_ver()
    is_glibc = libc == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 28)
    if platform.system() != "Linux" or platform.machine() != "x86_64" or not is_glibc:
        raise SetupError(
            "The locked packages need Linux on x86_64 with glibc 2.28 or newer (Debian 10, Ubuntu "
            f"20.04); this is {platform.system()} on {platform.machine()} with "
            f"{libc or 'another libc'} {version}. Use such a machine or a debian:12 container."
        )


def find_uv(folder: Path, log: Path) -> Path:
    """Return the path of uv `UV_VERSION`; install it in `folder` with pip if it is not found."""
    own = folder / "uv" / "bin" / "uv"
    for path in (own, shutil.which("uv")):
        if path and _answers([path, "--version"]).split()[1:2] == [UV_VERSION]:
            return Path(path)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        python = Path(sys.executable)
        if not _answers([python, "-m", "pip", "--version"]):
            run([python, "-m", "venv", Path(aside, "venv")], log)
            python = Path(aside, "venv/bin/python")
        target = Path(aside, "uv")
        pip = [python, "-m", "pip", "install", "--no-deps"]
        run([*pip, "--target", target, f"uv=={UV_VERSION}"], log)
        shutil.rmtree(folder / "uv", ignore_errors=True)
        target.rename(folder / "uv")
    return own


def _answers(command: Sequence[str | Path]) -> str:
    """Return what a command prints, or "" if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def run(command: Sequence[str | Path], log: Path) -> None:
    """Run a command and append its output to `log`; if it fails, show the end of the log."""
    # uv does not search pyenv's folders, and `python3.10` on the path may be a shim that fails.
    pythons = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin"), reverse=True)
    env = {**os.environ, "PATH": os.pathsep.join([*map(str, pythons), os.environ["PATH"]])}
    for ours, pips in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("SSL_CERT_FILE", "PIP_CERT")):
        if pips in env:
            env.setdefault(ours, env[pips])
    null = subprocess.DEVNULL
    with log.open("ab") as output:
        status = subprocess.call(command, stdin=null, stdout=output, stderr=output, env=env)
    if status:
        lines = log.read_text(errors="replace").splitlines()[-20:]
        what = " ".join(map(str, command[:4]))
        raise SetupError("\n".join([f"`{what} …` failed with status {status}:", *lines, _ADVICE]))


if __name__ == "__main__":
    try:
        create_environment(ROOT)
    except SetupError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run `make` again to continue.")
