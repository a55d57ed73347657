"""A private MariaDB server for ML Metadata, if MariaDB is installed."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.builders import free_port

_USER, _PASSWORD = "tower", "s3cret \\ é"


@contextmanager
def mysql(folder: Path) -> Iterator[dict[str, Any]]:
    """Run MariaDB with its data in a folder; yield the `metadata` section of a configuration."""
    server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    install = shutil.which("mariadb-install-db")
    if server is None or install is None:
        pytest.skip("MariaDB's server is not installed")
    data = folder / "mariadb"
    common = ["--no-defaults", f"--datadir={data}"]
    if os.geteuid() == 0:
        common.append("--user=root")
    subprocess.run(
        [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        capture_output=True,
    )
    login = f"'{_USER}'@'127.0.0.1'"
    escaped = _PASSWORD.replace("\\", "\\\\")
    (folder / "users.sql").write_text(
        f"CREATE USER {login} IDENTIFIED BY '{escaped}';\nGRANT ALL ON *.* TO {login};\n"
    )
    port = free_port()
    listening = [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
    files = [f"--{name}={data}/{name}" for name in ("socket", "pid-file")]
    with (folder / "mariadb.log").open("wb") as log:
        running = subprocess.Popen(
            [server, *common, *listening, *files, f"--init-file={folder}/users.sql"],
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(port, running)
        yield _section("mysql", port, _password_file(folder))
    finally:
        running.terminate()
        running.wait(60)


def _section(backend: str, port: int, password_file: Path) -> dict[str, Any]:
    return {
        "backend": backend,
        "host": "127.0.0.1",
        "port": port,
        "database": "two_tower",
        "user": _USER,
        "password_file": str(password_file),
    }


def _password_file(folder: Path) -> Path:
    path = folder / "password"
    path.write_text(_PASSWORD + "\n", encoding="utf-8")
    return path


def _wait_for(port: int, running: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if running.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")
