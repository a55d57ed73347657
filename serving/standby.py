"""A standby process that imports TensorFlow in advance and becomes a model server on request.

The import takes seconds. A caller that will soon need a server can start a standby process and do
other work in the meantime. `serving.launcher` then uses it instead of a new process:

    with standby_server():
        ...  # seconds of other work
        with running_model_server(base_path) as server:  # does not wait for the import
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
    """Start a standby process; stop it at the end of the block unless `start_server` used it."""
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
    """Start a model server, in a standby process if there is one.

    Args:
        flags: The flags of `python -m serving.server`.
        log: The file that the server's output is appended to.
    """
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
        return start_process(["-m", "serving.server", *flags], subprocess.DEVNULL, output)


def start_process(
    arguments: Sequence[str], stdin: int, output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Run this Python interpreter in the application's root folder, with that on its path."""
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


def main() -> int:
    """Import TensorFlow, wait for the flags and log file on standard input, and run the server.

    Returns:
        The server's exit status; 0 if the parent closes standard input without sending flags.
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
