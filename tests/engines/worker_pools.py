"""Run an engine and pools of Beam workers, each in its own process."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from tests.builders import free_port
from tests.pipeline.two_clubs import ROOT

_POOL = "apache_beam.runners.worker.worker_pool_main"
_JOB_SERVICE = "apache_beam.runners.portability.local_job_service_main"


@dataclass
class Engine:
    """The endpoints of an engine, and the number of workers that each pool has started."""

    job_endpoint: str
    pool_endpoint: str
    started: list[int]

    @property
    def settings(self) -> tuple[str, str]:
        """The settings of `deploy/beam/flink.yaml` with these endpoints, for `--set`.

        Beam's own job service ignores those of Flink.
        """
        deployed = yaml.safe_load((ROOT / "deploy/beam/flink.yaml").read_text())
        options = dict(option.split("=") for option in deployed["options"]) | {
            "--job_endpoint": self.job_endpoint,
            "--environment_config": self.pool_endpoint,
            "--parallelism": "2",
        }
        named = [f"{name}={value}" for name, value in options.items()]
        return f"beam.runner={deployed['runner']}", f"beam.options={json.dumps(named)}"


class _Dispatcher(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Asks the pools in turn, as a Kubernetes Service in front of them would.

    Flink's task managers give their workers the same IDs, and a pool stops a worker by its ID. So
    `StopWorker` does nothing. Workers end when their task manager closes the connection.
    """

    def __init__(self, ports: list[int]) -> None:
        self.started = [0] * len(ports)
        self._turn = itertools.cycle(range(len(ports)))
        self._pools = [
            beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(
                grpc.insecure_channel(f"localhost:{port}")
            )
            for port in ports
        ]

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802
        del context
        pool = next(self._turn)
        self.started[pool] += 1
        return self._pools[pool].StartWorker(request, wait_for_ready=True, timeout=60)

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802
        del request, context
        return beam_fn_api_pb2.StopWorkerResponse()


@contextmanager
def worker_pools(
    folder: Path, job_server: Sequence[str] = (), job_port: int = 0
) -> Iterator[Engine]:
    """Start two pools and a job server, by default Beam's own, which needs no cluster.

    Args:
        folder: Folder for the logs.
        job_server: The command of another job server.
        job_port: The port of the other job server.
    """
    ports = [free_port() for _ in range(2)]
    if not job_server:
        job_port = free_port()
        job_server = [sys.executable, "-m", _JOB_SERVICE, f"-p{job_port}"]
    commands = {
        f"pool-{port}": [sys.executable, "-m", _POOL, f"--service_port={port}"] for port in ports
    }
    with ExitStack() as stack:
        for name, command in {**commands, "job-server": job_server}.items():
            stack.enter_context(process(command, folder / f"{name}.log"))
        server = grpc.server(ThreadPoolExecutor(4))
        dispatcher = _Dispatcher(ports)
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(dispatcher, server)
        pool_port = server.add_insecure_port("localhost:0")
        server.start()
        stack.callback(server.stop, None)
        with grpc.insecure_channel(f"localhost:{job_port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=300)
        yield Engine(f"localhost:{job_port}", f"localhost:{pool_port}", dispatcher.started)


@contextmanager
def process(command: Sequence[str], log_file: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a command that writes to a log file, and stop it at the end."""
    environment = {
        **os.environ,
        # A pool starts its workers as plain `python`.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    with open(log_file, "wb") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
