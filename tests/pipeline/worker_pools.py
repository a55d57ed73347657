"""Run a Beam job service and pools of workers, each in its own process."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc

from tests.builders import free_port
from tests.pipeline.two_clubs import ROOT


@dataclass
class Engine:
    """The endpoints of an engine, and the number of workers that each pool has started."""

    job_endpoint: str
    pool_endpoint: str
    started: list[int]

    @property
    def options(self) -> list[str]:
        return [
            f"--job_endpoint={self.job_endpoint}",
            "--environment_type=EXTERNAL",
            f"--environment_config={self.pool_endpoint}",
            # Beam's default ends every job after a minute.
            "--job_server_timeout=3600",
        ]


class _Dispatcher(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Asks the pools in turn, as a Kubernetes Service in front of them would."""

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


@contextmanager
def worker_pools(folder: Path, num_pools: int = 2) -> Iterator[Engine]:
    """Start a job service and `num_pools` pools."""
    ports = [free_port() for _ in range(num_pools)]
    job_port = free_port()
    environment = {
        **os.environ,
        # A pool starts its workers as plain `python`.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    commands = [
        ["apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"] for port in ports
    ]
    commands.append(["apache_beam.runners.portability.local_job_service_main", f"-p{job_port}"])
    with ExitStack() as stack:
        for number, command in enumerate(commands):
            log = stack.enter_context(open(folder / f"process-{number}.log", "wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=environment, stdout=log, stderr=log
            )
            stack.callback(_stop, process)
        server = grpc.server(ThreadPoolExecutor(4))
        dispatcher = _Dispatcher(ports)
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(dispatcher, server)
        pool_port = server.add_insecure_port("localhost:0")
        server.start()
        stack.callback(server.stop, None)
        with grpc.insecure_channel(f"localhost:{job_port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        yield Engine(f"localhost:{job_port}", f"localhost:{pool_port}", dispatcher.started)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
