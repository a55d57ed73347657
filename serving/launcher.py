"""Temporary model servers in their own processes; the caller does not import TensorFlow.

The check before a push, the CLI commands, the tests and the benchmarks use this module.

A standby process imports TensorFlow in advance and becomes a model server on request. The import
takes seconds, so a caller that will soon need a server can do other work in the meantime:

    with standby_server():
        ...  # seconds of other work
        with running_model_server(base_path) as server:  # does not wait for the import
            ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from serving.errors import LaunchError

_APPLICATION_ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.02
_STOP_TIMEOUT_S = 15.0
_LOG_TAIL_LINES = 20

_waiting: list[subprocess.Popen[bytes]] = []


@dataclasses.dataclass(frozen=True)
class RunningModelServer:
    """The addresses, process and log of a server that is ready."""

    grpc_target: str  # host:port
    rest_url: str  # http://host:port
    pid: int
    log_path: Path


@contextlib.contextmanager
def running_model_server(
    base_path: str | os.PathLike[str],
    model_name: str = "retrieval",
    *,
    timeout_s: float = 60.0,
    log_path: str | os.PathLike[str] | None = None,
    extra_flags: Sequence[str] = (),
) -> Iterator[RunningModelServer]:
    """Run a model server for the duration of a `with` block.

        with running_model_server("serving/retrieval") as server:
            client = RetrievalClient(server.grpc_target)

    Args:
        base_path: The folder that contains the version folders.
        model_name: The name under which the model is served.
        timeout_s: Time limit until the model is available. Importing TensorFlow alone takes three
            to six seconds.
        log_path: The log file; by default a temporary one that is deleted after the block.
        extra_flags: Further flags for `python -m serving.server`.

    Raises:
        LaunchError: If the server exits before it is ready, or is not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="model_server_") as scratch:
        log = Path(log_path) if log_path is not None else Path(scratch, "log")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()  # a standby process opens it only after its imports
        ready_file = Path(scratch, "ready.json")
        flags = [
            f"--model_name={model_name}",
            # The server's working directory differs from the caller's.
            f"--model_base_path={os.path.abspath(base_path)}",
            "--port=auto",
            "--rest_api_port=auto",
            f"--ready_file={ready_file}",
            f"--parent_pid={os.getpid()}",
            *extra_flags,
        ]
        process = _start_server(flags, log.absolute())
        try:
            ports = _wait_until_ready(process, ready_file, log, timeout_s, base_path)
            yield RunningModelServer(
                grpc_target=f"127.0.0.1:{ports['grpc_port']}",
                rest_url=f"http://127.0.0.1:{ports['rest_port']}",
                pid=process.pid,
                log_path=log,
            )
        finally:
            _stop(process)


@contextlib.contextmanager
def standby_server() -> Iterator[None]:
    """Start a standby process, and stop it at the end of the block if it was not used."""
    process = _start_process(["-m", "serving.launcher"], subprocess.PIPE, subprocess.DEVNULL)
    _waiting.append(process)
    try:
        yield
    finally:
        if process in _waiting:
            _waiting.remove(process)
            process.kill()
            process.wait()


def _start_server(flags: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a model server, in a standby process if there is one."""
    while _waiting:
        process = _waiting.pop()
        order = json.dumps({"flags": list(flags), "log": os.fspath(log)})
        assert process.stdin is not None
        try:
            process.stdin.write(order.encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:  # the process died while it waited
            process.wait()
            continue
        return process
    with log.open("ab") as output:
        return _start_process(["-m", "serving.server", *flags], subprocess.DEVNULL, output)


def _start_process(
    arguments: Sequence[str], stdin: int, output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Run this Python interpreter in the application's root folder, with it on the path."""
    environment = dict(os.environ)
    paths = [str(_APPLICATION_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=_APPLICATION_ROOT,
        env=environment,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        # Ctrl-C in the terminal must not stop the server before the parent has cleaned up.
        start_new_session=True,
    )


def _wait_until_ready(
    process: subprocess.Popen[bytes],
    ready_file: Path,
    log: Path,
    timeout_s: float,
    base_path: str | os.PathLike[str],
) -> dict[str, int]:
    deadline = time.monotonic() + timeout_s
    while not ready_file.exists():
        problem = ""
        if (status := process.poll()) is not None:
            problem = f"ended with status {status} before the model was available."
        elif time.monotonic() > deadline:
            problem = (
                f"was not ready within {timeout_s:g} s; pass a larger `timeout_s` if it is still "
                "loading."
            )
        if problem:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join([f"The end of its log ({log}):", *lines[-_LOG_TAIL_LINES:]])
            raise LaunchError(f"The model server for {os.fspath(base_path)} {problem}\n{tail}")
        time.sleep(_POLL_S)
    ports: dict[str, int] = json.loads(ready_file.read_text(encoding="utf-8"))
    return ports


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Import TensorFlow, wait for the flags and log file on standard input, and run the server."""
    from serving.server.__main__ import import_tensorflow
    from serving.server.__main__ import main as serve

    import_tensorflow()
    line = sys.stdin.readline()
    if not line:
        return 0
    order = json.loads(line)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv[1:] = order["flags"]
    return serve()


if __name__ == "__main__":
    from serving.server.__main__ import end_process

    end_process(main())
