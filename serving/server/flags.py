"""The flags of the server, with the names of `tensorflow_model_server` where it has them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

AUTO_PORT = -1
"""Take a free port. 0 means "off", as in TensorFlow Serving."""

MAX_PORT = 65535


@dataclasses.dataclass(frozen=True)
class ServerFlags:
    """The parsed flags; `_FLAGS` documents each one."""

    model_base_path: str | None
    model_name: str
    model_config_file: str | None
    model_config_file_poll_wait_seconds: float
    allow_version_labels_for_unavailable_models: bool
    port: int
    rest_api_port: int
    bind_address: str
    file_system_poll_wait_seconds: float
    max_num_load_retries: int
    load_retry_interval_micros: int
    rest_api_timeout_in_ms: int
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    enable_batching: bool
    batching_parameters_file: str | None
    enable_model_warmup: bool
    shutdown_grace_seconds: float
    monitoring_config_file: str | None
    enable_grpc_healthcheck_service: bool
    ssl_config_file: str | None
    grpc_channel_arguments: tuple[tuple[str, int | str], ...]
    max_request_bytes: int
    log_format: str
    ready_file: str | None
    parent_pid: int | None


def parse_flags(argv: Sequence[str] | None = None) -> ServerFlags:
    """Parse the command line.

    Args:
        argv: The arguments without the program's name; `sys.argv[1:]` if None.

    Returns:
        The flags. An invalid flag ends the process with status 2 and a usage text.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serve a SavedModel over TensorFlow Serving's gRPC and REST APIs.",
        epilog="Example: python -m serving.server --model_name=retrieval "
        "--model_base_path=runs/movielens_100k/serving/retrieval",
        allow_abbrev=False,
    )
    for name, (parse, default, help_text) in _FLAGS.items():
        shown = "" if default is None or default == () else f" Default: {str(default).lower()}."
        metavar = _METAVARS.get(parse, name.rsplit("_", 1)[-1].upper())
        parser.add_argument(
            f"--{name}", type=parse, default=default, metavar=metavar, help=help_text + shown
        )
    flags = ServerFlags(**vars(parser.parse_args(argv)))
    if flags.model_base_path is None and flags.model_config_file is None:
        parser.error("one of --model_base_path and --model_config_file is required")
    if flags.port == 0 and flags.rest_api_port == 0:
        parser.error("--port and --rest_api_port must not both be 0: nothing would be served")
    if flags.port > 0 and flags.port == flags.rest_api_port:
        parser.error(f"--port and --rest_api_port must differ, but both are {flags.port}")
    return flags


def _port(text: str) -> int:
    if text == "auto":
        return AUTO_PORT
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be 'auto' or a number up to {MAX_PORT}, got {text!r}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from error


def _non_negative(text: str) -> int:
    value = _integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, got {text!r}")
    return value


def _positive(text: str) -> int:
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return value


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")


def _log_format(text: str) -> str:
    if text in ("text", "json"):
        return text
    raise argparse.ArgumentTypeError(f"must be text or json, got {text!r}")


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    arguments: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        key, equals, value = argument.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"must be KEY=VALUE,..., got {argument!r}")
        is_number = value.removeprefix("-").isdecimal()
        arguments.append((key, int(value) if is_number else value))
    return tuple(arguments)


_METAVARS: dict[Callable[[str], Any], str] = {
    _port: "PORT",
    _seconds: "SECONDS",
    _integer: "N",
    _non_negative: "N",
    _positive: "N",
    _boolean: "true|false",
    _log_format: "text|json",
    _channel_arguments: "KEY=VALUE,...",
}

# Name: (parser, default, help).
_FLAGS: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "model_base_path": (str, None, "Folder with one sub-folder per version, named by its number."),
    "model_name": (str, "default", "Name under which the model is served."),
    "model_config_file": (
        str,
        None,
        "Models, versions and labels: a ModelServerConfig in protobuf's text format. Replaces "
        "--model_base_path and --model_name.",
    ),
    "model_config_file_poll_wait_seconds": (
        _seconds,
        0.0,
        "Pause between two reads of --model_config_file; 0 reads it only at start-up.",
    ),
    "allow_version_labels_for_unavailable_models": (
        _boolean,
        False,
        "Allow a new label to point to a version that is not available yet.",
    ),
    "port": (_port, 8500, "gRPC port; 0 turns gRPC off, 'auto' takes a free port."),
    "rest_api_port": (_port, 8501, "REST port; 0 turns REST off, 'auto' takes a free port."),
    "bind_address": (str, "127.0.0.1", "Address to listen on; 0.0.0.0 for all."),
    "file_system_poll_wait_seconds": (
        _seconds,
        1.0,
        "Pause between two polls of the base paths; 0 polls only at start-up.",
    ),
    "max_num_load_retries": (
        _non_negative,
        5,
        "Retries of a failed load whose folder is unchanged. A changed folder is always tried "
        "again; at start-up each model gets one try.",
    ),
    "load_retry_interval_micros": (_non_negative, 60_000_000, "Pause before each retry."),
    "rest_api_timeout_in_ms": (
        _positive,
        30_000,
        "Maximum time of a REST request; after that it is answered with 504.",
    ),
    "tensorflow_intra_op_parallelism": (
        _integer,
        0,
        "Threads for one operation; 0 lets TensorFlow choose.",
    ),
    "tensorflow_inter_op_parallelism": (
        _integer,
        # A retrieval model is a chain of small operations; to hand each to a pool cost 60 to 100
        # of 270 us per request (5 candidates, 2 CPUs).
        -1,
        "Operations of one request that run at the same time; 0 lets TensorFlow choose, a negative "
        "number runs them one after the other in the request's thread.",
    ),
    "enable_batching": (
        _boolean,
        True,
        "Let waiting requests for the same computation share one run. No request waits for others.",
    ),
    "batching_parameters_file": (
        str,
        None,
        "Limits of the batches: a BatchingParameters in protobuf's text format.",
    ),
    "enable_model_warmup": (
        _boolean,
        True,
        "Replay assets.extra/tf_serving_warmup_requests before a version becomes available.",
    ),
    "shutdown_grace_seconds": (
        _seconds,
        10.0,
        "Time for running requests to finish after SIGTERM or SIGINT.",
    ),
    "monitoring_config_file": (
        str,
        None,
        "A MonitoringConfig in protobuf's text format; turns on the Prometheus page on the REST "
        "port.",
    ),
    "enable_grpc_healthcheck_service": (
        _boolean,
        False,
        'Offer grpc.health.v1 for "", "ModelService" and "PredictionService".',
    ),
    "ssl_config_file": (
        str,
        None,
        "An SSLConfig in protobuf's text format: TLS for gRPC. REST stays plain text.",
    ),
    "grpc_channel_arguments": (
        _channel_arguments,
        (),
        "gRPC settings, comma-separated, such as grpc.max_concurrent_streams=100.",
    ),
    "max_request_bytes": (
        _positive,
        2**31 - 1,
        "Larger requests are refused with RESOURCE_EXHAUSTED, over REST with 413.",
    ),
    "log_format": (_log_format, "text", "Format of the log lines."),
    "ready_file": (
        str,
        None,
        "File to write once the models are available: JSON with grpc_port, rest_port and pid; the "
        "port of an API that is off is null.",
    ),
    "parent_pid": (
        _positive,
        None,
        "Stop, as with SIGTERM, when the parent process is no longer this one.",
    ),
}
