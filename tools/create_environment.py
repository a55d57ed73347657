"""Make `.venv`: Python 3.10 with the locked packages and the `two-tower` command.

Called by make; runs on any Python from 3.9 with the standard library alone. It may be interrupted
at any moment and run again: the stamp that says "done" is written last.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import time
from pathlib import Path

from environment_stamp import is_up_to_date, is_venv, stamp_file, wanted_stamp
from find_python import closed_folder, find_python
from find_uv import find_uv
from steps import SetupError, run_step

ROOT = Path(__file__).resolve().parent.parent
# Measured: .venv takes 3.1 GB; it shares most of them with uv's cache on the same disk.
NEEDED_GB = 4.0
_SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)


def create_environment(root: Path) -> None:
    """Bring `.venv` to what `requirements.lock` and `setup.py` ask for.

    Args:
        root: the project's root.

    Raises:
        SetupError: something needed is missing or a step failed.
    """
    venv, folder = root / ".venv", root / ".setup"
    if is_up_to_date(root, venv):
        print("The environment .venv is up to date: nothing to do.")
        return
    _check_machine()
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        _wait_for(lock.fileno())
        if is_up_to_date(root, venv):  # another set-up made it meanwhile
            print("The environment .venv is up to date: nothing to do.")
            return
        _make(root, venv, folder, lock.fileno())


def _make(root: Path, venv: Path, folder: Path, lock: int) -> None:
    started = time.monotonic()
    log, incomplete = folder / "setup.log", folder / "incomplete"
    log.unlink(missing_ok=True)
    # The children inherit the lock: after a `kill -9` here, uv may still be at work.
    env, keep_open = _environment(), (lock,)

    print("Setting up .venv (about 3 GB; one to ten minutes, by network and disk)", flush=True)
    uv = find_uv(folder, log)
    print(f"[1/4] uv: {uv}", flush=True)

    whole = is_venv(venv)
    if not whole:
        _check_disk(root)
    interrupted = whole and incomplete.exists()
    stamp_file(venv).unlink(missing_ok=True)
    incomplete.touch()
    if whole:
        mended = ", mended after an interrupted set-up" if interrupted else ""
        print(f"[2/4] Python 3.10: the one in .venv{mended}", flush=True)
    else:
        python = find_python(uv, folder / "python", log, env, keep_open)
        print(f"[2/4] Python 3.10: {python}", flush=True)
        closed = closed_folder(python)
        if closed is not None and closed_folder(venv) is None:
            print(f"      {closed} is closed to other users, so they cannot start .venv:")
            print("      a service's user needs a folder of its own, see docs/schedules.md")
        run_step(
            [uv, "venv", "--quiet", "--clear", "--no-project", "--python", python, venv],
            what="making .venv",
            log=log,
            env=env,
            keep_open=keep_open,
        )

    print("[3/4] The locked packages, each checked against its hash", flush=True)
    into: list[object] = ["--python", venv / "bin" / "python"]
    sync: list[object] = [uv, "pip", "sync", *into, "--require-hashes", "--compile-bytecode"]
    # A package that an interrupted sync left half-made looks installed.
    sync += ["--reinstall"] if interrupted else []
    run_step(
        [*sync, root / "requirements.lock"],
        what="installing the locked packages",
        log=log,
        env=env,
        keep_open=keep_open,
    )
    print("[4/4] This project, editable", flush=True)
    run_step(
        [uv, "pip", "install", *into, "--no-deps", "--no-build-isolation", "--editable", root],
        what="installing this project",
        log=log,
        env=env,
        keep_open=keep_open,
    )
    stamp_file(venv).write_text(wanted_stamp(root) + "\n", encoding="utf-8")
    incomplete.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    print(f"Done in {seconds:.0f} s. `make help` lists what can be done; the command is")
    print("    .venv/bin/two-tower --help")


def _environment() -> dict[str, str]:
    """Return uv's environment: what pip was told of index and certificates holds for uv too."""
    env = {**os.environ, "UV_NO_PROGRESS": "1"}
    env.setdefault("UV_HTTP_TIMEOUT", "120")
    if env.get("PIP_INDEX_URL") and "UV_INDEX_URL" not in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    if env.get("PIP_CERT"):
        env.setdefault("SSL_CERT_FILE", env["PIP_CERT"])
    # uv carries roots of its own, which lack the one of a company's proxy.
    if any(Path(bundle).is_file() for bundle in _SYSTEM_CERTIFICATES):
        env.setdefault("UV_SYSTEM_CERTS", "1")
        env.setdefault("UV_NATIVE_TLS", "1")  # its name in an older uv
    return env


def _check_machine() -> None:
    system, machine = platform.system(), platform.machine()
    libc, version = platform.libc_ver()
    fits = system == "Linux" and machine == "x86_64" and libc == "glibc"
    if not fits or tuple(map(int, version.split(".")[:2])) < (2, 28):
        raise SetupError(
            "the locked packages are built for Linux on x86_64 with glibc 2.28 or newer "
            f"(Debian 10, Ubuntu 20.04), this is {system} on {machine} with "
            f"{libc or 'another libc'} {version}. Use such a machine, or a container of "
            "debian:12 on one."
        )


def _check_disk(root: Path) -> None:
    free_gb = shutil.disk_usage(root).free / 1e9
    if free_gb < NEEDED_GB:
        raise SetupError(
            f"the set-up needs {NEEDED_GB} GB of free disk space, {root} has {free_gb:.1f} GB. "
            "Free some space and run `make` again."
        )


def _wait_for(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another set-up of this folder is at work: waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    try:
        create_environment(ROOT)
    except SetupError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run `make` again to go on.")
