"""A model server that has imported everything and waits to be told what to serve.

Importing TensorFlow takes seconds. Whoever knows that a server will soon be needed starts one on
standby, and `serving.launcher` takes it instead of a new process:

    with standby_server():
        ...  # seconds of other work
        with running_model_server(base_path) as server:  # is up at once
            ...
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

_APPLICATION_ROOT = Path(__file__).resolve().parent.parent

_waiting: list[subprocess.Popen[bytes]] = []


@contextlib.contextmanager
def standby_server() -> Iterator[None]:
    """Keep one process on standby for the length of a `with` block, or until it is taken."""
    process = start_process(["-m", "serving.standby"], subprocess.PIPE, subprocess.DEVNULL)
    _waiting.append(process)
    try:
        yield
    finally:
        if process in _waiting:
            _waiting.remove(process)
            process.kill()
            process.wait()


def start_server(flags: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a model server, from standby where a process waits.

    Args:
        flags: Of `python -m serving.server`.
        log: Where its output is appended.
    """
    while _waiting:
        process = _waiting.pop()
        order = json.dumps({"flags": list(flags), "log": os.fspath(log)})
        assert process.stdin is not None
        try:
            process.stdin.write(order.encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:  # it has died while it waited
            process.wait()
            continue
        return process
    with log.open("ab") as output:
        return start_process(["-m", "serving.server", *flags], subprocess.DEVNULL, output)


def start_process(
    arguments: Sequence[str], stdin: int, output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start this Python in the application's folder, with the application on its path."""
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
        # Ctrl-C in the parent's terminal must not stop the server before the parent's clean-up.
        start_new_session=True,
    )


def main() -> int:
    """Import, wait for the order on standard input, serve.

    Returns:
        The server's exit status; 0 if the parent closed standard input without an order.
    """
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
