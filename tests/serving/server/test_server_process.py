"""The server as a process: start, new versions under load, drain, failures to start."""

from __future__ import annotations

import concurrent.futures
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.clients import RestRetrievalClient, RetrievalClient
from serving.clients.blocking_client import BlockingClient
from serving.clients.model import Tensor
from serving.errors import DeadlineExceededError
from serving.launcher import running_model_server
from tests.builders import wait_for

Install = Callable[[Path, int], Path]

ROOT = Path(__file__).resolve().parents[3]


def start_server(*flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serving.server", *flags],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_from_an_absent_base_path_to_the_third_version(
    tmp_path: Path, install_version: Install
) -> None:
    base_path, ready_file = tmp_path / "served", tmp_path / "ready.json"
    process = start_server(
        f"--model_base_path={base_path}",
        "--model_name=retrieval",
        "--port=auto",
        "--rest_api_port=auto",
        "--file_system_poll_wait_seconds=0.05",
        f"--ready_file={ready_file}",
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "base_path_missing" in line:
                break
        assert not ready_file.exists()

        base_path.mkdir()
        install_version(base_path, 1)
        wait_for(ready_file.exists)
        ready = json.loads(ready_file.read_text())
        assert ready["pid"] == process.pid
        with RetrievalClient(f"127.0.0.1:{ready['grpc_port']}", query_id_name="user_id") as client:
            versions = answer_all_the_time_while_versions_change(client, base_path, install_version)
        # No request failed, and the answers moved on from version to version.
        assert versions == sorted(versions)
        assert set(versions) == {1, 4}

        with RestRetrievalClient(f"http://127.0.0.1:{ready['rest_port']}") as rest:
            states = {row.version: (row.state, row.error_code) for row in rest.status()}
        assert states == {1: ("END", "OK"), 3: ("END", "DATA_LOSS"), 4: ("AVAILABLE", "OK")}

        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=30)[1]
        assert process.returncode == 0
        assert log.splitlines()[-1].endswith("INFO stopped")
    finally:
        process.kill()
        process.wait()


def answer_all_the_time_while_versions_change(
    client: RetrievalClient, base_path: Path, install_version: Install
) -> list[int]:
    versions: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            versions.append(client.recommend("u1").model_version or 0)

    def states() -> dict[int, str]:
        return {row.version: row.state for row in client.status()}

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_for(lambda: versions)
        half_written = base_path / "2"
        (half_written / "variables").mkdir(parents=True)
        broken = base_path / "3"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes(b"no protobuf")
        wait_for(lambda: states().get(3) == "END")
        assert states() == {1: "AVAILABLE", 3: "END"}
        install_version(base_path, 4)
        wait_for(lambda: states() == {1: "END", 3: "END", 4: "AVAILABLE"})
        wait_for(lambda: versions[-1] == 4)
    finally:
        stop.set()
        asking.join()
    return versions


def count(client: BlockingClient, rounds: int) -> list[int]:
    """Ask the slow model, whose signature none of the client's methods covers."""
    signature = client.metadata().signatures["serving_default"]
    inputs = {"rounds": Tensor("int64", (1,), [rounds])}
    exchange = client._protocol.predict(signature, inputs)
    return list(exchange.read(client._send(exchange.request, 60)).output("counted").values)


def test_slow_requests_time_out_over_rest_and_are_answered_after_sigterm(slow_model: Path) -> None:
    answers: list[Any] = []

    def ask(client: BlockingClient, rounds: int) -> None:
        answers.append(count(client, rounds))

    flags = ["--rest_api_timeout_in_ms=20"]
    with running_model_server(slow_model.parent, "slow", extra_flags=flags) as server:
        rest, grpc = (
            RestRetrievalClient(server.rest_url, "slow"),
            RetrievalClient(server.grpc_target, "slow"),
        )
        grpc.metadata()
        with pytest.raises(DeadlineExceededError, match="Timed out waiting for notification"):
            ask(rest, 20_000)

        asking = threading.Thread(target=ask, args=(grpc, 100_000))
        asking.start()
        time.sleep(0.2)
        assert answers == []
        os.kill(server.pid, signal.SIGTERM)
        wait_for(lambda: "draining" in server.log_path.read_text())
        host, port = server.rest_url.removeprefix("http://").split(":")

        def is_closed() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) == errno.ECONNREFUSED

        wait_for(is_closed)
        asking.join()
        assert answers == [[100_000]]
        wait_for(lambda: "INFO stopped" in server.log_path.read_text())
        grpc.close()


def test_a_drain_tells_those_who_watch_and_waits_for_those_who_ask(
    slow_model: Path, tmp_path: Path
) -> None:
    ready_file = tmp_path / "ready.json"
    process = start_server(
        f"--model_base_path={slow_model.parent}", "--model_name=slow", "--port=auto",
        "--rest_api_port=0", "--enable_grpc_healthcheck_service=true", f"--ready_file={ready_file}",
        "--shutdown_grace_seconds=300",
    )  # fmt: skip
    try:
        wait_for(ready_file.exists, timeout_s=60)
        target = f"127.0.0.1:{json.loads(ready_file.read_text())['grpc_port']}"
        with (
            grpc.insecure_channel(target) as channel,
            RetrievalClient(target, "slow") as asking,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            watched = {
                name: health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
                for name in ("", "PredictionService", "nobody")
            }
            serving = [next(stream).status for stream in watched.values()]
            asking.metadata()
            with concurrent.futures.ThreadPoolExecutor() as pool:
                answer = pool.submit(count, asking, 100_000)
                time.sleep(0.2)
                process.send_signal(signal.SIGTERM)
                # Nothing but the end of the stream may follow.
                draining = [[told.status for told in stream] for stream in watched.values()]
                counted = answer.result()
        # Long before the grace is over, although all of them would have watched on.
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    response = health_pb2.HealthCheckResponse
    assert serving == [response.SERVING, response.SERVING, response.SERVICE_UNKNOWN]
    assert draining == [[response.NOT_SERVING], [response.NOT_SERVING], [response.SERVICE_UNKNOWN]]
    assert counted == [100_000]


@pytest.mark.parametrize("flag", ["--port", "--rest_api_port"])
def test_a_taken_port_is_one_clear_error(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = {"--port": "--rest_api_port", "--rest_api_port": "--port"}[flag]
        process = start_server(f"--model_base_path={tmp_path}", f"{flag}={port}", f"{other}=auto")
        log = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    (line,) = log.splitlines()
    assert f"{flag}: cannot listen on 127.0.0.1:{port}: Address already in use" in line


def test_sigint_while_waiting_for_the_model_stops_the_server(tmp_path: Path) -> None:
    process = start_server(
        f"--model_base_path={tmp_path}", "--port=auto", "--rest_api_port=0", "--model_name=m"
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "no_versions_found" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
