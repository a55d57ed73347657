"""Start-up steps that need no TensorFlow: check the ports early, report the ports when ready."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from serving.server.flags import AUTO_PORT, ServerFlags


class StartupError(Exception):
    """The server cannot start; the text is for the operator."""


def check_ports_are_free(flags: ServerFlags) -> None:
    """Fail before the model is loaded if a port is taken.

    Raises:
        StartupError: If a port that the flags name is taken.
    """
    for name, port in (("--port", flags.port), ("--rest_api_port", flags.rest_api_port)):
        if port > 0:
            bound_socket(name, flags.bind_address, port).close()


def bound_socket(flag: str, address: str, port: int) -> socket.socket:
    """Return a socket that is bound but does not listen yet.

    Raises:
        StartupError: If the port is taken.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    # Old connections that are still closing must not keep a restarted server off its port.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, 0 if port == AUTO_PORT else port))
    except OSError as error:
        bound.close()
        raise StartupError(
            f"{flag}: cannot listen on {address}:{port}: {error.strerror}. Stop the process that "
            "uses the port, or choose another one ('auto' takes a free port)"
        ) from error
    return bound


def write_ready_file(path: str, grpc_port: int | None, rest_port: int | None) -> None:
    """Write the ports, None for an API that is off, and the process ID, atomically."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    content = {"grpc_port": grpc_port, "rest_port": rest_port, "pid": os.getpid()}
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(target)
