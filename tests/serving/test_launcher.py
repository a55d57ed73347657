from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from serving import launcher
from serving.errors import LaunchError
from serving.launcher import running_model_server, standby_server
from tests.builders import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def base_path(tmp_path: Path, install_version: Callable[[Path, int], Path]) -> Path:
    """A folder `served` with one version."""
    path = tmp_path / "served"
    path.mkdir()
    install_version(path, 1)
    return path


def test_a_model_that_cannot_be_loaded_is_reported_with_the_log(tmp_path: Path) -> None:
    (tmp_path / "served" / "1").mkdir(parents=True)
    (tmp_path / "served" / "1" / "saved_model.pb").write_bytes(b"no protobuf")
    log = tmp_path / "logs" / "server.log"
    launching = running_model_server(tmp_path / "served", log_path=log)
    with pytest.raises(LaunchError) as caught, launching:
        pass
    text = str(caught.value)
    assert "ended with status 1 before the model was available" in text
    assert "Failed to start server. Error: Unknown: 1 model(s) did not become available" in text
    assert str(log) in text
    assert "startup_failed" in log.read_text()


def test_a_server_that_is_not_ready_in_time_is_reported_and_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    started_at = time.monotonic()
    launching = running_model_server(tmp_path / "absent", timeout_s=0.3, log_path=log)
    with pytest.raises(LaunchError, match=r"not ready within 0\.3 s; pass a larger"), launching:
        pass
    assert time.monotonic() - started_at < 10


def test_a_standby_process_that_is_not_ready_in_time_is_reported(tmp_path: Path) -> None:
    launching = running_model_server(tmp_path / "absent", timeout_s=0.0)
    with (
        standby_server(),
        pytest.raises(LaunchError, match="not ready within 0 s"),
        launching,
    ):
        pass


def test_works_from_any_folder_and_without_tensorflow_in_the_parent(base_path: Path) -> None:
    script = """
import os, sys, time
from serving.launcher import running_model_server
with running_model_server("served") as server:
    from serving.clients import RetrievalClient
    with RetrievalClient(server.grpc_target, query_id_name="user_id") as client:
        print(client.recommend("u1", k=1).candidate_ids)
try:
    os.kill(server.pid, 0)
except ProcessLookupError:
    print("gone")
print([name for name in ("tensorflow", "numpy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=base_path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["('d',)", "gone", "[]"]


def test_a_server_ends_when_its_launcher_is_killed(base_path: Path) -> None:
    script = """
import sys, time
from serving.launcher import running_model_server
with running_model_server(sys.argv[1]) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""
    launcher = subprocess.Popen(
        [sys.executable, "-c", script, str(base_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    server_pid = int(launcher.stdout.readline())
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    wait_for(lambda: not psutil.pid_exists(server_pid))


def test_a_server_on_standby_is_used_and_answers(tmp_path: Path, base_path: Path) -> None:
    log = tmp_path / "log"
    with standby_server():
        [waiting] = launcher._waiting
        with running_model_server(base_path, log_path=log) as server:
            assert server.pid == waiting.pid
            assert not launcher._waiting
        assert waiting.poll() is not None
        assert "version_available" in log.read_text()
        # There was one; the next server is a new process.
        with running_model_server(base_path) as server:
            assert server.pid != waiting.pid


def test_an_unused_or_dead_server_on_standby_does_no_harm(base_path: Path) -> None:
    with standby_server():
        [waiting] = launcher._waiting
    assert waiting.poll() is not None
    assert not launcher._waiting
    with standby_server():
        [dead] = launcher._waiting
        dead.kill()
        dead.wait()
        with running_model_server(base_path) as server:
            assert server.pid != dead.pid


def test_a_server_on_standby_ends_with_its_parent() -> None:
    script = """
import os
from serving import launcher
held = launcher.standby_server()
held.__enter__()
print(launcher._waiting[0].pid, flush=True)
os._exit(1)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    wait_for(lambda: not psutil.pid_exists(int(done.stdout)), timeout_s=60)
