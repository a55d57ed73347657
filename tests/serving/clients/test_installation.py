"""The client-only install from the checkout. It downloads two small packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.long
def test_the_client_extra_installs_no_tensorflow(tmp_path: Path) -> None:
    def run(*command: object) -> str:
        return subprocess.run(
            list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    run(sys.executable, "-m", "venv", "client")
    python = tmp_path / "client" / "bin" / "python"
    run(python, "-m", "pip", "install", f"{ROOT}[client]")
    installed = run(python, "-m", "pip", "list", "--format=freeze").lower()
    assert "grpcio==" in installed
    assert not {"tensorflow", "tfx", "numpy", "apache-beam"} & {
        line.partition("==")[0] for line in installed.splitlines()
    }
    run(python, "-c", "from serving.clients import RetrievalClient; import serving.loadtest")
