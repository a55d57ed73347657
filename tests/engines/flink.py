"""Run a Flink session cluster and Beam's job server on this machine, each in its own process."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.builders import free_port, wait_for
from tests.engines.worker_pools import Engine, process, worker_pools
from tests.pipeline.two_clubs import ROOT

JARS = ROOT / ".flink"
_DEPLOYED = ROOT / "deploy/beam/flink_cluster/flink-conf.yaml"
_CONFIGURATION = """
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc_port}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest_port}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 2
taskmanager.cpu.cores: 2.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.managed.size: 256m
taskmanager.memory.jvm-metaspace.size: 192m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
"""
# The packages of Java 17 that Flink 1.19 opens in its own configuration.
_OPENED = ("lang", "lang.invoke", "net", "nio", "text", "time", "util", "util.concurrent")
_JAVA = [
    "java",
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
    "-Xmx512m",
    "-XX:MaxDirectMemorySize=768m",  # the buffers of shuffles
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # the jobs of tests are too short for the optimising compiler
    f"--class-path={JARS}/*",
]


def why_absent() -> str | None:
    """Return the reason why Flink cannot be started here, or None."""
    if shutil.which("java") is None:
        return "java must be on the PATH"
    return None if JARS.is_dir() else f"{JARS} must have Flink's jars: run `make test-engines`"


class Flink:
    """A running session cluster, with pools of workers and a job server in `engine`."""

    def __init__(self, folder: Path, num_task_managers: int, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._url = f"http://127.0.0.1:{(rest_port := free_port())}"
        own = _CONFIGURATION.format(rpc_port=free_port(), rest_port=rest_port)
        (folder / "flink-conf.yaml").write_text(_DEPLOYED.read_text() + own)
        self._start("entrypoint.StandaloneSessionClusterEntrypoint", "job-manager")
        self._task_managers = [
            self._start("taskexecutor.TaskManagerRunner", f"task-manager-{number}")
            for number in range(num_task_managers)
        ]
        job_port = free_port()
        server = "org.apache.beam.runners.flink.FlinkJobServerDriver"
        options = {
            "flink-master": f"127.0.0.1:{rest_port}",
            "job-host": "localhost",
            "job-port": job_port,
            "artifact-port": 0,
            "expansion-port": 0,
            "artifacts-dir": folder / "staging",
        }
        command = [*_JAVA, server, *(f"--{name}={value}" for name, value in options.items())]
        self.engine: Engine = stack.enter_context(worker_pools(folder, command, job_port))
        wait_for(lambda: self._num_task_managers() == num_task_managers, 300)

    def kill_task_manager(self) -> None:
        """Kill the last task manager, which cannot say goodbye."""
        self._task_managers[-1].kill()

    def num_restarts(self) -> int:
        """Return the number of times that a job was restarted after a failure."""
        log = (self._folder / "job-manager.log").read_text()
        return log.count("from state RESTARTING to RUNNING")

    def _num_task_managers(self) -> int:
        try:
            return len(self._ask("taskmanagers")["taskmanagers"])
        except OSError:  # the job manager does not answer yet
            return 0

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/{path}", timeout=60) as answer:
            return json.load(answer)

    def _start(self, main: str, name: str) -> "subprocess.Popen[bytes]":
        command = [*_JAVA, f"org.apache.flink.runtime.{main}", "--configDir", str(self._folder)]
        return self._stack.enter_context(process(command, self._folder / f"{name}.log"))


@contextmanager
def flink_cluster(folder: Path, num_task_managers: int = 2) -> Iterator[Flink]:
    """Start a job manager, task managers with two slots each, a job server and two pools."""
    with ExitStack() as stack:
        yield Flink(folder, num_task_managers, stack)
