"""The server's command-line flags, and the sockets for their ports.

The flags have the names of `tensorflow_model_server` if they exist there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any

from serving.errors import StartupError

AUTO_PORT = -1
"""Take a free port. 0 means "off", as in TensorFlow Serving."""

MAX_PORT = 65535


def _port(text: str) -> int:
    if text == "auto":
        return AUTO_PORT
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be 'auto' or a number up to {MAX_PORT}, got {text!r}")


def _at_least(minimum: int, kind: type = int) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if minimum <= (value := kind(text)) < math.inf:
                return value
        article = "an integer" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"must be {article} of at least {minimum}, got {text!r}")

    return parse


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "false", "0"):
        return text.lower() in ("true", "1")
    raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    arguments: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        key, equals, value = argument.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"must be KEY=VALUE,..., got {argument!r}")
        is_number = value.removeprefix("-").isdecimal()
        arguments.append((key, int(value) if is_number else value))
    return tuple(arguments)


# By the type of a flag's default; other values are texts.
_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _boolean,
    int: _at_least(0),
    float: _at_least(0, float),
}


def _flag(default: Any, help_text: str, parse: Callable[[str], Any] | None = None) -> Any:
    parse = parse or _PARSERS.get(type(default), str)
    return dataclasses.field(default=default, metadata={"type": parse, "help": help_text})


@dataclasses.dataclass(frozen=True)
class ServerFlags:
    """The values of the command-line flags, with their parsers and help texts."""

    model_base_path: str | None = _flag(
        None, "Folder with one sub-folder per version, named by its number."
    )
    model_name: str = _flag("default", "Name under which the model is served.")
    model_config_file: str | None = _flag(
        None,
        "Models, versions and labels: a ModelServerConfig in protobuf's text format. Replaces "
        "--model_base_path and --model_name.",
    )
    model_config_file_poll_wait_seconds: float = _flag(
        0.0, "Pause between two reads of --model_config_file; 0 reads it only at start-up."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Allow a new label to point to a version that is not available yet."
    )
    port: int = _flag(8500, "gRPC port; 0 turns gRPC off, 'auto' takes a free port.", _port)
    rest_api_port: int = _flag(
        8501, "REST port; 0 turns REST off, 'auto' takes a free port.", _port
    )
    bind_address: str = _flag("127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    file_system_poll_wait_seconds: float = _flag(
        1.0, "Pause between two polls of the base paths; 0 polls only at start-up."
    )
    rest_api_timeout_in_ms: int = _flag(
        30_000, "Maximum time of a REST request, which is then answered with 504.", _at_least(1)
    )
    tensorflow_intra_op_parallelism: int = _flag(
        0, "Threads for one operation; 0 lets TensorFlow choose."
    )
    # A retrieval model is a chain of small operations. Running them in a thread pool took 60 to
    # 100 us of the 270 us of a request (5 candidates, 2 CPUs).
    tensorflow_inter_op_parallelism: int = _flag(
        -1,
        "Operations of one request that run at the same time; 0 lets TensorFlow choose, a negative "
        "number runs them one after the other in the request's thread.",
        int,
    )
    enable_batching: bool = _flag(
        True,
        "Let waiting requests for the same computation share one run. A lone request never waits.",
    )
    batching_parameters_file: str | None = _flag(
        None, "Limits of the batches: a BatchingParameters in protobuf's text format."
    )
    shutdown_grace_seconds: float = _flag(
        10.0, "Time for running requests to finish after SIGTERM or SIGINT."
    )
    monitoring_config_file: str | None = _flag(
        None,
        "A MonitoringConfig in protobuf's text format; turns on the Prometheus page on the REST "
        "port.",
    )
    enable_grpc_healthcheck_service: bool = _flag(
        False, 'Offer grpc.health.v1 for "", "ModelService" and "PredictionService".'
    )
    ssl_config_file: str | None = _flag(
        None, "An SSLConfig in protobuf's text format: TLS for gRPC. REST stays plain text."
    )
    grpc_channel_arguments: tuple[tuple[str, int | str], ...] = _flag(
        (), "gRPC settings, such as grpc.max_concurrent_streams=100.", _channel_arguments
    )
    max_request_bytes: int = _flag(
        2**31 - 1,
        "Larger requests are refused with RESOURCE_EXHAUSTED, over REST with 413.",
        _at_least(1),
    )
    request_log_folder: str | None = _flag(
        None, "Folder for the request log: JSON lines with answered requests and the candidates."
    )
    request_log_sample: float = _flag(1.0, "Share of the requests to log.")
    request_log_max_bytes: int = _flag(
        100_000_000, "Size from which a new file of the request log is begun.", _at_least(1)
    )
    request_log_max_files: int = _flag(
        10, "Number of files of the request log to keep.", _at_least(1)
    )
    log_format: str = _flag("text", "Format of the log lines: text or json.")
    ready_file: str | None = _flag(
        None,
        "File to write once the models are available: JSON with grpc_port, rest_port and pid; the "
        "port of an API that is off is null.",
    )
    parent_pid: int | None = _flag(
        None, "Stop, as with SIGTERM, when the parent process is no longer this one.", _at_least(1)
    )


def parse_flags(argv: Sequence[str] | None = None) -> ServerFlags:
    """Parse the command line. If a flag is invalid, print an error and exit with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serve a SavedModel over TensorFlow Serving's gRPC and REST APIs.",
        epilog="Example: python -m serving.server --model_name=retrieval "
        "--model_base_path=runs/movielens_100k/serving/retrieval",
        allow_abbrev=False,
    )
    for field in dataclasses.fields(ServerFlags):
        options: dict[str, Any] = dict(field.metadata)
        if field.default not in (None, ()):
            options["help"] += f" Default: {str(field.default).lower()}."
        is_switch = isinstance(field.default, bool)
        options["metavar"] = "true|false" if is_switch else field.name.rpartition("_")[2].upper()
        parser.add_argument(f"--{field.name}", default=field.default, **options)
    flags = ServerFlags(**vars(parser.parse_args(argv)))
    if flags.model_base_path is None and flags.model_config_file is None:
        parser.error("one of --model_base_path and --model_config_file is required")
    if flags.port == 0 and flags.rest_api_port == 0:
        parser.error("--port and --rest_api_port must not both be 0: nothing would be served")
    if flags.log_format not in ("text", "json"):
        parser.error(f"--log_format must be text or json, but is {flags.log_format!r}")
    if flags.request_log_sample > 1:
        parser.error(f"--request_log_sample must be at most 1, but is {flags.request_log_sample}")
    if flags.port > 0 and flags.port == flags.rest_api_port:
        parser.error(f"--port and --rest_api_port must differ, but both are {flags.port}")
    return flags


def check_ports_are_free(flags: ServerFlags) -> None:
    """Check that the ports in the flags are free, before the slow import of TensorFlow."""
    for name, port in (("--port", flags.port), ("--rest_api_port", flags.rest_api_port)):
        if port > 0:
            bound_socket(name, flags.bind_address, port).close()


def bound_socket(flag: str, address: str, port: int) -> socket.socket:
    """Return a socket that is bound to a port but does not listen yet."""
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    # A restarted server can bind its port even if old connections are still closing.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, 0 if port == AUTO_PORT else port))
    except OSError as error:
        bound.close()
        problem = f"{flag}: cannot listen on {address}:{port}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            problem += ". Stop the process that uses the port, or choose another one"
        raise StartupError(problem) from error
    return bound
