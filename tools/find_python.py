"""Find a Python 3.10 that really starts, or have uv install one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from steps import SetupError, run_step

# TFX 1.16 has no wheels for a newer one: see docs/decisions/0001-stack.md.
VERSION = (3, 10)
_NAME = "python3.10"

# A Python built without the headers of these libraries starts, and fails later on.
_PROBE = """\
import bz2, ctypes, lzma, ssl, sys, zlib
print(sys.implementation.name, sys.version_info[0], sys.version_info[1], sys.maxsize > 2**32)
"""
_EXPECTED = ["cpython", str(VERSION[0]), str(VERSION[1]), "True"]


def why_not(python: Path) -> str | None:
    """Say why `python` cannot be used, by starting it: a file of that name proves nothing.

    Args:
        python: the interpreter. pyenv's `python3.10` is a stub that fails where 3.10 is installed
            and not selected.

    Returns:
        The reason in one line, or None if it can be used.
    """
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start: {error}"
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        # A traceback says it in its last line, pyenv's stub in its first.
        traceback = bool(lines) and lines[0].startswith("Traceback")
        return f"does not start: {lines[-1 if traceback else 0] if lines else done.returncode}"
    found = done.stdout.split()
    if found != _EXPECTED:
        return f"is {found[0]} {'.'.join(found[1:3])}" if len(found) == 4 else "is no Python"
    return None


def candidates() -> Iterator[Path]:
    """Yield the places where a Python 3.10 may be, each once."""
    home = Path.home()
    pyenv_roots = [Path(os.environ["PYENV_ROOT"])] if os.environ.get("PYENV_ROOT") else []
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    places = [Path(sys.executable)] if sys.executable else []
    places += [folder / _NAME for folder in (*folders, Path("/usr/local/bin"), Path("/usr/bin"))]
    for root in (*pyenv_roots, home / ".pyenv"):
        places += sorted(root.glob("versions/3.10.*/bin/python"), reverse=True)
    seen: set[Path] = set()
    for place in places:
        if place not in seen and os.access(place, os.X_OK):
            seen.add(place)
            yield place


def closed_folder(path: Path) -> Path | None:
    """Return the folder above `path` that keeps other users from it, or None.

    Args:
        path: a file or folder; symbolic links are followed.
    """
    for folder in reversed(path.resolve().parents):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def find_python(
    uv: Path, folder: Path, log: Path, env: dict[str, str], keep_open: tuple[int, ...] = ()
) -> Path:
    """Return a Python 3.10 that starts.

    Args:
        uv: the uv program, which knows Pythons of its own and can install one.
        folder: where uv puts one that it has to install.
        log: the set-up's log.
        env: uv's environment.
        keep_open: file descriptors that uv inherits.

    Returns:
        The path of the interpreter.

    Raises:
        SetupError: there is none and uv cannot install one.
    """
    refused = []
    for place in candidates():
        reason = why_not(place)
        if reason is None:
            return place
        refused.append(f"    {place} {reason}")
    own = {**env, "UV_PYTHON_INSTALL_DIR": str(folder)}
    found = _uv_finds(uv, env) or _uv_finds(uv, own)
    if found is not None:
        return found
    print("      no Python 3.10 here: uv installs one", flush=True)
    try:
        run_step(
            [uv, "python", "install", "--no-bin", "3.10"],
            what="installing Python 3.10 with uv",
            log=log,
            env=own,
            keep_open=keep_open,
        )
    except SetupError as error:
        tried = "\n".join(refused) or "    none"
        raise SetupError(
            "a Python 3.10 that starts is needed, and uv could not install one.\n"
            f"Tried before that:\n{tried}\n"
            "Any of these gives one; then run `make` again:\n"
            "    pyenv install 3.10\n"
            "    apt-get install python3.10            (Ubuntu 22.04)\n"
            "    conda create -n py310 python=3.10     (then `make PYTHON=.../py310/bin/python`)\n"
            "    uv python install 3.10                (where its downloads can be reached)\n"
            f"uv's own words are at the end of {log}."
        ) from error
    found = _uv_finds(uv, own)
    if found is None:
        raise SetupError(f"uv installed a Python 3.10 in {folder}, which does not start: see {log}")
    return found


def _uv_finds(uv: Path, env: dict[str, str]) -> Path | None:
    # --system: not the project's own .venv, which may be the one to be mended.
    done = subprocess.run(
        [str(uv), "python", "find", "--system", "3.10"],
        capture_output=True,
        text=True,
        env={**env, "UV_PYTHON_DOWNLOADS": "never"},
        check=False,
    )
    found = Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None
    return found if found is not None and why_not(found) is None else None
