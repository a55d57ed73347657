"""What can be checked before TensorFlow is imported and a model loaded, which takes its time."""

from __future__ import annotations

import socket

from serving.server.flags import ServerFlags


class StartupError(Exception):
    """The server cannot start; the text is meant for the operator."""


def check_ports_are_free(flags: ServerFlags) -> None:
    """Try the ports that the flags fix; they are opened for good once the model is there.

    Raises:
        StartupError: If one is taken.
    """
    for name, port in (("--port", flags.port), ("--rest_api_port", flags.rest_api_port)):
        if port <= 0:
            continue
        family = socket.AF_INET6 if ":" in flags.bind_address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Connections of the last run that wait for their end do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((flags.bind_address, port))
            except OSError as error:
                raise StartupError(
                    f"{name}: cannot listen on {flags.bind_address}:{port}: {error.strerror}; "
                    "stop what uses it or choose another port ('auto' takes a free one)"
                ) from error
