"""Know whether the environment is the one that the project's files ask for."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

_INPUTS = ("setup.py", "requirements.lock")
_SECTIONS = ("[build-system]", "[tool.uv]")


def wanted_stamp(root: Path) -> str:
    """Return the hash of all that decides what the environment holds.

    Modification times play no part: a clone, a checkout or a copy scrambles them. The place of
    the project does, as the scripts in an environment name it.

    Args:
        root: the project's root.

    Returns:
        A SHA-256 as hexadecimal digits.
    """
    digest = hashlib.sha256(str(root).encode())
    for name in _INPUTS:
        digest.update(b"\0" + (root / name).read_bytes())
    digest.update(b"\0" + _sections(root / "pyproject.toml").encode())
    for path in sorted((root / "tools").glob("*.py")):
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()


def stamp_file(venv: Path) -> Path:
    """Return where an environment's stamp is; it is written last."""
    return venv / "setup.stamp"


def is_up_to_date(root: Path, venv: Path) -> bool:
    """Say whether `venv` carries the wanted stamp and its Python still starts.

    Args:
        root: the project's root.
        venv: the environment.
    """
    try:
        stamp = stamp_file(venv).read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return stamp == wanted_stamp(root) and (venv / "bin" / "two-tower").exists() and is_venv(venv)


def is_venv(venv: Path) -> bool:
    """Say whether the Python in `venv` starts, is a 3.10, and belongs to it."""
    probe = "import sys; print(*sys.version_info[:2], sys.prefix)"
    try:
        done = subprocess.run(
            [str(venv / "bin" / "python"), "-I", "-c", probe],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == f"3 10 {venv}"


def _sections(pyproject: Path) -> str:
    """Return the sections that matter; tomllib is not there before Python 3.11."""
    kept, inside = [], False
    for line in pyproject.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            inside = line.strip() in _SECTIONS
        if inside:
            kept.append(line)
    return "\n".join(kept)
