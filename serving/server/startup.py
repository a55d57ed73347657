"""Start-up functions that do not need TensorFlow: check and bind ports, write the ready file."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from serving.server.flags import AUTO_PORT, ServerFlags


class StartupError(Exception):
    """The server cannot start; the message tells the operator how to fix it."""


def check_ports_are_free(flags: ServerFlags) -> None:
    """Check that the ports in the flags are free, before the slow import of TensorFlow.

    Raises:
        StartupError: If a port is in use.
    """
    for name, port in (("--port", flags.port), ("--rest_api_port", flags.rest_api_port)):
        if port > 0:
            bound_socket(name, flags.bind_address, port).close()


def bound_socket(flag: str, address: str, port: int) -> socket.socket:
    """Return a socket that is bound to a port but does not listen yet.

    Args:
        flag: The flag that sets the port, for the error message.
        address: The IP address to bind to.
        port: The port, or `AUTO_PORT`.

    Raises:
        StartupError: If the port is in use.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    # A restarted server can bind its port even if old connections are still closing.
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
    """Write the ports (null for a disabled API) and the process ID to a JSON file, atomically."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    content = {"grpc_port": grpc_port, "rest_port": rest_port, "pid": os.getpid()}
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(target)
